"""Files of ``torch.save`` since version 1.6, and TorchScript archives: zip archives of a pickle and of storages.

The storages lie uncompressed in the archive, so tensors are mapped in place.
"""

import hashlib
import struct
import zipfile
from dataclasses import replace
from itertools import pairwise

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.pickle_machine import Damaged
from mergekit_wise.checkpoint.pickle_report import SuspiciousNames
from mergekit_wise.checkpoint.safetensors import MAX_HEADER, read_metadata
from mergekit_wise.checkpoint.script_code import declared_weights, leave_out_undeclared
from mergekit_wise.checkpoint.state_dict import Region, refusal, torch_checkpoint
from mergekit_wise.checkpoint.torch_objects import Storage, reduce, storage_of
from mergekit_wise.checkpoint.unpickle import load
from mergekit_wise.wording import plural, shown

METADATA = "mergekit_wise.json"
"""The record in which this tool keeps the metadata of the files that it writes; torch does not look at it."""

LOCAL_HEADER = 30
"""Bytes of the header in front of a member's name."""

ENCRYPTED = 1
"""A bit of a member's flags."""

MAX_PICKLE = 1 << 30
"""Bytes."""


def open_torch_zip(file: MappedFile, entry: str | None = None) -> Checkpoint:
    """Open the archive without executing its pickle. Raises CheckpointError."""
    suspicious = SuspiciousNames()
    try:
        members = _members(file)
        folder = _folder(members)
        text = _content(file, members[f"{folder}data.pkl"])
        _require_little_endian(file, members.get(f"{folder}byteorder"))
        value, _ = load(memoryview(text), reduce, storage_of, observe=suspicious.observe)
        is_script = f"{folder}constants.pkl" in members
        left_out = leave_out_undeclared(value, declared_weights(file, members, folder)) if is_script else ()
        checkpoint = torch_checkpoint(
            file,
            "TorchScript archive" if is_script else "torch.save zip",
            value,
            lambda storage: _locate(file, storage, members, folder),
            hashlib.sha256(text).hexdigest(),
            suspicious,
            entry,
        )
        metadata = {**checkpoint.metadata, **_metadata(file, members, folder)}
        return replace(checkpoint, metadata=metadata, notes=(*checkpoint.notes, *left_out))
    except (ValueError, zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, RecursionError) as error:
        raise refusal(file, "torch.save file", error) from error


def _members(file: MappedFile) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(file.path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise ValueError("a name occurs twice in the archive")
    _require_apart(list(members.values()))
    return members


def _require_apart(members: list[zipfile.ZipInfo]) -> None:
    """Raise ValueError if members overlap, which is how a small archive can seem to hold a lot."""
    members.sort(key=lambda member: member.header_offset)
    for member, following in pairwise(members):
        if member.header_offset + LOCAL_HEADER + member.compress_size > following.header_offset:
            raise ValueError(f"{shown(member.filename)} and {shown(following.filename)} overlap in the archive")


def _folder(members: dict[str, zipfile.ZipInfo]) -> str:
    """The folder that holds everything, with its slash; torch names it after the file."""
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"a zip archive with {plural(len(pickles), 'data.pkl file')}, where 1 was expected")
    return pickles[0].removesuffix("data.pkl")


def _start(file: MappedFile, member: zipfile.ZipInfo) -> int:
    """The byte at which a member's content starts. Raises ValueError unless it is uncompressed and lies in the file."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{shown(member.filename)} is compressed, which torch.save never does; save the weights again")
    header = file.bytes_at(max(member.header_offset, 0), member.header_offset + LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise Damaged(f"{shown(member.filename)} is not where the archive's directory says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = member.header_offset + LOCAL_HEADER + name_length + extra_length
    if member.flag_bits & ENCRYPTED:
        raise ValueError(f"{shown(member.filename)} is encrypted; unpack it and save the weights again")
    if start + member.file_size > file.size or member.file_size != member.compress_size:
        raise Damaged(f"{shown(member.filename)} reaches beyond the end of the file")
    return int(start)


def _content(file: MappedFile, member: zipfile.ZipInfo) -> bytes:
    start = _start(file, member)
    if member.file_size > MAX_PICKLE:
        raise ValueError(f"{shown(member.filename)} is {member.file_size:,} bytes long, which is implausible")
    return file.bytes_at(start, start + member.file_size)


def _metadata(file: MappedFile, members: dict[str, zipfile.ZipInfo], folder: str) -> dict[str, str]:
    member = members.get(f"{folder}{METADATA}")
    if member is None:
        return {}
    if member.file_size > MAX_HEADER:
        raise ValueError(f"{METADATA} is {member.file_size:,} bytes long, which is implausible")
    return read_metadata(_content(file, member))


def _require_little_endian(file: MappedFile, member: zipfile.ZipInfo | None) -> None:
    if member is not None and _content(file, member) != b"little":
        raise ValueError("its numbers are big-endian; save the weights again on a little-endian machine")


def _locate(file: MappedFile, storage: Storage, members: dict[str, zipfile.ZipInfo], folder: str) -> Region:
    member = members.get(f"{folder}data/{storage.key}")
    if member is None:
        raise Damaged(f"the storage {shown(storage.key)!r} is missing from the archive")
    return _start(file, member), member.file_size

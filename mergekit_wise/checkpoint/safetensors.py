"""The safetensors format, read and written.

The order of tensors and the padding are those of safetensors' own ``save_file``, so that the same tensors and metadata
give the same bytes. Several metadata entries, which that leaves in any order, are sorted by key. Reading checks every
number in the header.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import (
    BY_NAME,
    RANK,
    StoredTensor,
    TensorInfo,
    check_name,
    check_shape,
    check_text,
)
from mergekit_wise.checkpoint.writing import writing
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import shown

MAX_HEADER = 100_000_000
"""Bytes; the limit that safetensors' own reader sets."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The plan of a file to be written: its header, and for each tensor the offset of its first byte in the file."""

    header: bytes
    infos: tuple[TensorInfo, ...]
    offsets: Mapping[str, int]
    size: int

    has_checksums = False

    def frame(self, checksums: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """All bytes but those of the tensors, each run with its offset; the format has no checksums."""
        yield 0, self.header


def plan_layout(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> Layout:
    """Order `infos` as safetensors does: the widest dtype first, then by name."""
    ordered = sorted(infos, key=lambda info: (-RANK[info.dtype], info.name.encode()))
    described: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    begins, end = [], 0
    for info in ordered:
        begins.append(end)
        end += info.nbytes
        described[info.name] = {
            "dtype": info.dtype.name,
            "shape": list(info.shape),
            "data_offsets": [begins[-1], end],
        }
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {info.name: len(header) + begin for info, begin in zip(ordered, begins, strict=True)}
    return Layout(header, tuple(ordered), offsets, len(header) + end)


def write_safetensors(
    output: Path, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic]]], metadata: Mapping[str, str]
) -> None:
    """Write tensors that are in memory, as arrays of their dtypes' storage dtypes. Raises OutputError."""
    layout = plan_layout((info for info, _ in tensors.values()), metadata)
    with writing(output, layout.size) as write:
        write(0, layout.header)
        for info in layout.infos:
            write(layout.offsets[info.name], np.ascontiguousarray(tensors[info.name][1]))


def looks_like_safetensors(file: MappedFile) -> bool:
    """Whether the file starts with a length and the opening brace of a JSON object."""
    return file.size >= 9 and file.bytes_at(8, 9) == b"{"


def open_safetensors(file: MappedFile, entry: str | None = None) -> Checkpoint:
    """Read the header. Raises CheckpointError if the file is damaged or truncated, or if an entry is asked for."""
    if entry is not None:
        raise CheckpointError(
            f"{file.path}: a safetensors file has no entries, so '::{shown(entry)}' names nothing. Leave it out."
        )
    length = int.from_bytes(file.bytes_at(0, 8), "little")
    body = 8 + length
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{file.path}: looks like safetensors, but its header would be {length:,} bytes long "
            f"(at most {MAX_HEADER:,} are allowed). The file is damaged or of another kind."
        )
    if body > file.size:
        raise CheckpointError(
            f"{file.path}: truncated: the header needs {body:,} bytes, the file has {file.size:,}. "
            "Copy or download it again."
        )
    text = file.bytes_at(8, body)
    try:
        placed, metadata = parse_header(text, file.size - body)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: damaged safetensors file: {error}. Copy or download it again.") from error
    tensors = {info.name: StoredTensor(info, file, body + begin) for info, begin in placed}
    return Checkpoint(file.path, "safetensors", tensors, metadata, hashlib.sha256(text).hexdigest())


def parse_header(text: bytes, body_size: int) -> tuple[list[tuple[TensorInfo, int]], dict[str, str]]:
    """Parse a header's JSON.

    Returns (tensor, offset from the end of the header) in file order, and the metadata.

    Raises ValueError that says what is wrong: every byte of the body must belong to exactly one tensor.
    """
    # The value is an object: the opening brace is how files of this format are recognised.
    described = parse_json(text, without_duplicates)
    metadata = _parse_metadata(described.pop("__metadata__", {}))
    # Empty tensors share their start with the next one: the end decides.
    placed = sorted(
        (_parse_tensor(name, entry) for name, entry in described.items()),
        key=lambda place: (place[1], place[0].nbytes),
    )
    expected = 0
    for info, begin in placed:
        if begin != expected:
            raise ValueError(f"tensor {shown(info.name)!r} starts at byte {begin}, not at {expected}")
        expected = begin + info.nbytes
    if expected != body_size:
        raise ValueError(f"the header promises {expected:,} bytes of tensors, the file has {body_size:,}")
    return placed, metadata


def read_metadata(text: bytes) -> dict[str, str]:
    """Parse metadata that is JSON by itself. Raises ValueError that says what is wrong."""
    return _parse_metadata(json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates))


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For ``json.loads``, which by itself keeps the last of several entries with one name. Raises ValueError."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice in it")
    return entries


def _parse_metadata(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("the metadata is not a map of texts")
    for text in (*entry, *entry.values()):
        check_text(text)
    return entry


def _parse_tensor(name: str, entry: object) -> tuple[TensorInfo, int]:
    check_name(name)
    facts = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = facts.get("dtype"), facts.get("shape"), facts.get("data_offsets")
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets")
    if dtype not in BY_NAME:
        raise ValueError(f"tensor {name!r} has the unknown dtype {shown(dtype)!r}")
    for size in (*shape, *offsets):
        if type(size) is not int or size < 0:
            raise ValueError(f"tensor {name!r} has a shape or offset that is not a natural number")
    begin, end = offsets
    check_shape(name, shape, BY_NAME[dtype].itemsize)
    info = TensorInfo(name, BY_NAME[dtype], tuple(shape))
    if end - begin != info.nbytes:
        raise ValueError(
            f"tensor {name!r} of shape {list(shape)} and dtype {info.dtype} needs {info.nbytes} bytes, "
            f"the header gives it {end - begin}"
        )
    return info, begin

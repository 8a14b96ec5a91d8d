"""What ``torch.save`` wrote before torch 1.6: five pickles in a row, then the storages, each behind its length.

The same stream, of a single storage, is what a plain pickle of a tensor holds inside (see plain_pickle.py).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.checks import shown
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.naming import with_call
from mergekit_wise.checkpoint.pickle_machine import Hear, PickleError, Reduce
from mergekit_wise.checkpoint.placing import Region, place_all
from mergekit_wise.checkpoint.state_dict import find_state_dict
from mergekit_wise.checkpoint.suspects import Suspects
from mergekit_wise.checkpoint.torch_objects import Storage, reduce, storage_of
from mergekit_wise.checkpoint.unpickle import load
from mergekit_wise.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
START = b"\x80\x02\x8a\n" + MAGIC.to_bytes(10, "little") + b"."
"""The first pickle of the row, as torch writes it."""


@dataclass(frozen=True, slots=True)
class LegacyStream:
    """What a stream holds: an object, where each storage lies (by key), and the byte after the pickles."""

    value: object
    regions: Mapping[str, Region]
    header_end: int


def looks_like_legacy(file: MappedFile) -> bool:
    """Whether the file starts with torch's magic number, pickled."""
    return file.bytes_at(0, len(START)) == START


def open_legacy(file: MappedFile) -> Checkpoint:
    """Read the pickles' structure. Raises CheckpointError; executes nothing."""
    try:
        suspects = Suspects()
        stream = read_stream(file.view(), reduce, suspects.hear)
        state = find_state_dict(stream.value)
        tensors = place_all(file, state, lambda storage: stream.regions[storage.key])
    except ValueError as error:
        raise CheckpointError(
            f"{file.path}: not a readable torch.save file of the old format: {error}. "
            "If it was cut off, copy or download it again."
        ) from error
    digest = hashlib.sha256(file.bytes_at(0, stream.header_end)).hexdigest()
    notes = (*state.notes, *suspects.notes(state.notes))
    return Checkpoint(file.path, "torch.save before 1.6", tensors, state.metadata, digest, notes)


def read_stream(data: memoryview, call: Reduce, hear: Hear) -> LegacyStream:
    """Read the pickles and the storages' lengths. Raises ValueError."""
    magic, at = load(data, call, _no_storage, 0, hear)
    protocol, at = load(data, call, _no_storage, at, hear)
    system, at = load(data, call, _no_storage, at, hear)
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
        raise PickleError("its first numbers are not torch's")
    if system.get("little_endian") is not True:
        raise PickleError("its numbers are big-endian; save the weights again on an ordinary machine")
    storages: dict[str, Storage] = {}

    def persistent(saved_id: object) -> object:
        if isinstance(saved_id, tuple) and len(saved_id) == 4 and saved_id[0] == "module":
            return saved_id[1]  # a class, beside which old torch kept its source code
        storage = storage_of(saved_id)
        return storages.setdefault(storage.key, storage)

    value, at = load(data, call, persistent, at, hear)
    keys, at = load(data, call, _no_storage, at, hear)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of storages is no list of names")
    if len(set(keys)) != len(keys):
        raise PickleError("a storage occurs twice in its list")
    if not storages.keys() <= set(keys):
        raise PickleError("a storage is missing from its list")
    return LegacyStream(value, _regions(data, keys, storages, at), at)


def _no_storage(saved_id: object) -> object:
    raise PickleError(f"a storage where none belongs{with_call(saved_id)}")


def _regions(data: memoryview, keys: list[str], storages: Mapping[str, Storage], at: int) -> dict[str, Region]:
    regions = {}
    for key in keys:
        if key not in storages:
            raise PickleError(f"storage {shown(key)!r} belongs to no tensor")
        count = int.from_bytes(data[at : at + 8], "little", signed=True)
        size = count * storages[key].dtype.itemsize
        at += 8
        if count != storages[key].count or at + size > len(data):
            raise PickleError(f"truncated: storage {shown(key)!r} reaches beyond the end of the file")
        regions[key] = (at, size)
        at += size
    return regions

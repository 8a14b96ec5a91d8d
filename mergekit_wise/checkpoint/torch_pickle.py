"""Torch files that are pickles from the first byte on: ``torch.save`` before version 1.6, and ``pickle.dump``.

The old ``torch.save`` wrote five pickles in a row, then the storages, each after its length. ``pickle.dump``, which the
WiSE-FT authors used, writes one pickle in which each storage is a byte string. That string is a complete old-style
``torch.save`` of the storage.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.pickle_machine import (
    Blob,
    Damaged,
    Global,
    Observe,
    PickleError,
    Reduce,
    Stub,
    UnsuitableError,
)
from mergekit_wise.checkpoint.pickle_report import SuspiciousNames, described, with_call
from mergekit_wise.checkpoint.signatures import MAGIC
from mergekit_wise.checkpoint.state_dict import Region, refusal, torch_checkpoint
from mergekit_wise.checkpoint.tensors import StoredTensor
from mergekit_wise.checkpoint.torch_objects import Storage, reduce, storage_of
from mergekit_wise.checkpoint.unpickle import load
from mergekit_wise.wording import shown

PROTOCOL = 1001

LOAD_FROM_BYTES = Global("torch.storage", "_load_from_bytes")


def open_old_save(file: MappedFile, entry: str | None = None) -> Checkpoint:
    """Open a file of ``torch.save`` before version 1.6 without executing it. Raises CheckpointError."""
    suspicious = SuspiciousNames()
    try:
        value, regions, end = _read_stream(file.view(), reduce, suspicious.observe)
        digest = hashlib.sha256(file.bytes_at(0, end)).hexdigest()
        return torch_checkpoint(
            file, "torch.save before 1.6", value, lambda storage: regions[storage.key], digest, suspicious, entry
        )
    except ValueError as error:
        raise refusal(file, "torch.save file of the old format", error) from error


def open_pickle(file: MappedFile, entry: str | None = None) -> Checkpoint:
    """Open a file of ``pickle.dump``, storages inside byte strings included, without executing it.

    Raises CheckpointError.
    """
    found: dict[str, tuple[Storage, Region]] = {}  # by a key of its own, so that no byte string is read twice
    suspicious = SuspiciousNames()

    def call(function: Global, arguments: tuple[object, ...]) -> object:
        if function != LOAD_FROM_BYTES:
            return reduce(function, arguments)
        blob = _blob_of(arguments)
        key = f"byte {blob.start}"
        if key not in found:
            found[key] = _nested_storage(key, blob, suspicious.observe)
        return found[key][0]

    try:
        value, end = load(file.view(), call, _no_outside_data, observe=suspicious.observe)
        checkpoint = torch_checkpoint(
            file, "plain pickle", value, lambda storage: found[storage.key][1], "", suspicious, entry
        )
    except ValueError as error:
        raise refusal(file, "pickle of weights", error) from error
    # The bytes that describe the tensors are scattered between the storages: names, shapes and places stand for them.
    facts = [
        (name, str(t.info.dtype), t.info.shape, *((t.offset, t.strides) if isinstance(t, StoredTensor) else ()))
        for name, t in checkpoint.tensors.items()
    ]
    return replace(checkpoint, digest=hashlib.sha256(repr((facts, end)).encode()).hexdigest())


def _no_outside_data(saved_id: object) -> object:
    raise PickleError(f"it refers to data outside itself{with_call(saved_id)}")


def _blob_of(arguments: tuple[object, ...]) -> Blob:
    match arguments:
        case (Blob() as blob,):
            return blob
        case (Stub(kind=Global(module="_codecs", name="encode")),):
            raise UnsuitableError(
                "it was written with pickle protocol 2 or older, which keeps bytes as text; save the weights "
                "again with torch.save"
            )
        case _:
            raise PickleError(f"a nested storage is not a byte string{with_call(arguments)}")


def _nested_storage(key: str, blob: Blob, observe: Observe) -> tuple[Storage, Region]:
    """The one storage that a byte string holds, under its new key, and where it lies in the file."""
    value, regions, _ = _read_stream(blob.view, reduce, observe)
    if not isinstance(value, Storage):
        raise PickleError(f"a nested byte string holds a {described(value)}, where a storage was expected")
    offset, size = regions[value.key]
    return replace(value, key=key), (blob.start + offset, size)


def _read_stream(data: memoryview, call: Reduce, observe: Observe) -> tuple[object, Mapping[str, Region], int]:
    """Read five pickles in a row and the lengths of the storages behind them.

    Returns the saved object, where each storage lies (by its key), and the byte after the pickles. Raises ValueError.
    """
    magic, at = load(data, call, _no_storage, 0, observe)
    protocol, at = load(data, call, _no_storage, at, observe)
    system, at = load(data, call, _no_storage, at, observe)
    if (magic, protocol) != (MAGIC, PROTOCOL) or not isinstance(system, dict):
        raise PickleError("its first numbers are not torch's")
    if system.get("little_endian") is not True:
        raise PickleError("its numbers are big-endian; save the weights again on a little-endian machine")
    storages: dict[str, Storage] = {}

    def persistent(saved_id: object) -> object:
        if isinstance(saved_id, tuple) and len(saved_id) == 4 and saved_id[0] == "module":
            return saved_id[1]  # a class, which old torch saved together with its source code
        storage = storage_of(saved_id)
        return storages.setdefault(storage.key, storage)

    value, at = load(data, call, persistent, at, observe)
    keys, at = load(data, call, _no_storage, at, observe)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of storages is not a list of names")
    if len(set(keys)) != len(keys):
        raise PickleError("a storage occurs twice in its list")
    if not storages.keys() <= set(keys):
        raise PickleError("a storage is missing from its list")
    return value, _regions(data, keys, storages, at), at


def _no_storage(saved_id: object) -> object:
    raise PickleError(f"a storage in an unexpected place{with_call(saved_id)}")


def _regions(data: memoryview, keys: list[str], storages: Mapping[str, Storage], at: int) -> dict[str, Region]:
    regions = {}
    for key in keys:
        if key not in storages:
            raise PickleError(f"storage {shown(key)!r} belongs to no tensor")
        count = int.from_bytes(data[at : at + 8], "little", signed=True)
        size = count * storages[key].dtype.itemsize
        at += 8
        if count != storages[key].count or at + size > len(data):
            raise Damaged(f"truncated: storage {shown(key)!r} reaches beyond the end of the file")
        regions[key] = (at, size)
        at += size
    return regions

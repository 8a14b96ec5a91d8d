"""What ``pickle.dump`` makes of a module or of tensors: the WiSE-FT authors' own checkpoints are such files.

Each storage lies inside the pickle as a byte string, which is a complete old-style ``torch.save`` of that storage.
"""

import hashlib
from dataclasses import dataclass

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.legacy import read_stream
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.naming import described, with_call
from mergekit_wise.checkpoint.pickle_machine import Blob, Global, Hear, PickleError, Stub
from mergekit_wise.checkpoint.placing import Region, place_all
from mergekit_wise.checkpoint.state_dict import find_state_dict
from mergekit_wise.checkpoint.suspects import Suspects
from mergekit_wise.checkpoint.torch_objects import Storage, reduce
from mergekit_wise.checkpoint.unpickle import load
from mergekit_wise.errors import CheckpointError

NESTED = Global("torch.storage", "_load_from_bytes")


@dataclass(frozen=True, slots=True)
class NestedStorage:
    """A storage inside a byte string, under a key of its own, and where it lies in the file."""

    storage: Storage
    region: Region


def looks_like_pickle(file: MappedFile) -> bool:
    """Whether the file starts as pickles of protocol 2 and later do."""
    start = file.bytes_at(0, 2)
    return start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")


def open_plain_pickle(file: MappedFile) -> Checkpoint:
    """Read the pickle's structure, nested storages included. Raises CheckpointError; executes nothing."""
    nested: dict[str, NestedStorage] = {}
    suspects = Suspects()

    def call(function: Global, arguments: tuple[object, ...]) -> object:
        return _nested(arguments, nested, suspects.hear) if function == NESTED else reduce(function, arguments)

    try:
        value, end = load(file.view(), call, _no_storage, hear=suspects.hear)
        state = find_state_dict(value)
        tensors = place_all(file, state, lambda storage: nested[storage.key].region)
    except ValueError as error:
        raise CheckpointError(
            f"{file.path}: not a readable pickle of weights: {error}. If it was cut off, copy or download it again."
        ) from error
    # The describing part is spread between the storages: names, shapes and places stand for it.
    facts = [(name, str(t.info.dtype), t.info.shape, t.offset, t.strides) for name, t in tensors.items()]
    digest = hashlib.sha256(repr((facts, end)).encode()).hexdigest()
    notes = (*state.notes, *suspects.notes(state.notes))
    return Checkpoint(file.path, "plain pickle", tensors, state.metadata, digest, notes)


def _no_storage(saved_id: object) -> object:
    raise PickleError(f"it refers to data outside itself{with_call(saved_id)}")


def _nested(arguments: tuple[object, ...], found: dict[str, NestedStorage], hear: Hear) -> Storage:
    """The one storage that a byte string holds; it is noted in `found`, so that no string is read twice."""
    match arguments:
        case (Blob() as blob,):
            key = f"byte {blob.start}"
            if key not in found:
                found[key] = _read_nested(key, blob, hear)
            return found[key].storage
        case (Stub(kind=Global(module="_codecs", name="encode")),):
            raise PickleError(
                "it was written with pickle protocol 2 or older, which keeps bytes as text; save the weights "
                "again with torch.save"
            )
        case _:
            raise PickleError(f"a nested storage is no byte string{with_call(arguments)}")


def _read_nested(key: str, blob: Blob, hear: Hear) -> NestedStorage:
    stream = read_stream(blob.view, reduce, hear)
    if not isinstance(stream.value, Storage):
        raise PickleError(f"a nested byte string holds a {described(stream.value)}, where a storage was expected")
    offset, size = stream.regions[stream.value.key]
    return NestedStorage(Storage(key, stream.value.dtype, stream.value.count), (blob.start + offset, size))

"""A checkpoint: facts at once, bytes on request. Knows no alpha, no model and no terminal."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StoredTensor, TensorInfo


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors in a file.

    Attributes:
        path: the file.
        kind: the format, for people ("safetensors", "torch.save zip").
        tensors: name -> the place of the tensor, in the file's order.
        metadata: texts that the file holds about itself; empty if its format has none.
        digest: SHA-256, in hex, of the part of the file that describes the tensors.
        notes: for the user: what was renamed or ignored when the file was opened.
    """

    path: Path
    kind: str
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    digest: str
    notes: tuple[str, ...] = ()

    def info(self, name: str) -> TensorInfo:
        """The facts about one tensor."""
        return self.tensors[name].info

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(stored.info.nbytes for stored in self.tensors.values())

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """The files that hold the tensors, each once."""
        return tuple({id(stored.file): stored.file for stored in self.tensors.values()}.values())

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements `start` to `stop` of a tensor flattened in C order.

        Returns a 1-D read-only array of the tensor's storage dtype: a view of the file where the elements lie densely,
        else a copy of just those elements.
        """
        stored = self.tensors[name]
        info = stored.info
        stop = info.count if stop is None else stop
        if stored.strides is None:
            offset = stored.offset + start * info.dtype.itemsize
            return stored.file.elements(info.dtype.storage, offset, stop - start)
        return _strided(stored).flat[start:stop]

    def expect(self, name: str, start: int, stop: int) -> None:
        """Announce that all of these elements will be read soon."""
        stored = self.tensors[name]
        if stored.strides is None and stop > start:
            width = stored.info.dtype.itemsize
            stored.file.expect(stored.offset + start * width, stored.offset + stop * width)

    def forget(self, name: str, start: int, stop: int) -> None:
        """Let the system reclaim the memory of elements that are not needed again."""
        stored = self.tensors[name]
        if stored.strides is None:
            width = stored.info.dtype.itemsize
            stored.file.forget(stored.offset + start * width, stored.offset + stop * width)

    def renamed(self, names: Mapping[str, str], note: str) -> "Checkpoint":
        """The same tensors under other names (old -> new), with a note about the change."""
        tensors = {
            names[old]: replace(stored, info=replace(stored.info, name=names[old]))
            for old, stored in self.tensors.items()
        }
        return replace(self, tensors=tensors, notes=(*self.notes, note))

    def close(self) -> None:
        """Close the files that hold the tensors."""
        for file in self.files:
            file.close()


def _strided(stored: StoredTensor) -> NDArray[np.generic]:
    info = stored.info
    assert stored.strides is not None
    span = 1 + sum((size - 1) * step for size, step in zip(info.shape, stored.strides, strict=True))
    flat = stored.file.elements(info.dtype.storage, stored.offset, span)
    in_bytes = tuple(step * info.dtype.itemsize for step in stored.strides)
    return as_strided(flat, info.shape, in_bytes, writeable=False)


@contextmanager
def closing(*checkpoints: Checkpoint) -> Iterator[None]:
    """Close `checkpoints` when the block ends, also after an exception."""
    try:
        yield
    finally:
        for checkpoint in checkpoints:
            checkpoint.close()

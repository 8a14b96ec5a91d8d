"""Tensors that are computed from other tensors while they are read. Knows no names and no formats.

Nothing is computed before it is read, and only the elements that are read, so that memory stays bounded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import DType, StorageArray, StoredTensor, Tensor, TensorInfo, is_dense


@dataclass(frozen=True, slots=True)
class InMemory(Tensor):
    """A tensor whose elements are in memory, as a 1-D array of the storage dtype."""

    elements: StorageArray

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """None."""
        return ()

    def read(self, start: int, stop: int) -> StorageArray:
        """A view."""
        return self.elements[start:stop]


@dataclass(frozen=True, slots=True)
class _OfAnother(Tensor):
    """A tensor whose elements come from another one."""

    base: Tensor

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """Those of the other tensor."""
        return self.base.files

    @property
    def saved_as(self) -> DType:
        """That of the other tensor."""
        return self.base.saved_as

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        self.base.expect(start, stop)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        self.base.forget(start, stop)


@dataclass(frozen=True, slots=True)
class Section(_OfAnother):
    """Consecutive elements of another tensor, from element `first` on, in any shape: rows, or a reshaped tensor."""

    first: int = 0

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`."""
        return self.base.read(self.first + start, self.first + stop)

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        self.base.expect(self.first + start, self.first + stop)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        self.base.forget(self.first + start, self.first + stop)


@dataclass(frozen=True, slots=True)
class Stacked(Tensor):
    """Tensors of one dtype, one after the other along the first dimension."""

    parts: tuple[Tensor, ...]

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """Those of the parts."""
        return tuple(file for part in self.parts for file in part.files)

    @property
    def saved_as(self) -> DType:
        """That of the parts if they share one."""
        every = {part.saved_as for part in self.parts}
        return every.pop() if len(every) == 1 else self.info.dtype

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`."""
        pieces = [part.read(*span) for part, *span in self._overlapping(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, self.info.dtype.storage), *pieces])

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        for part, *span in self._overlapping(start, stop):
            part.expect(*span)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        for part, *span in self._overlapping(start, stop):
            part.forget(*span)

    def _overlapping(self, start: int, stop: int) -> list[tuple[Tensor, int, int]]:
        """The parts that hold elements `start` to `stop`, and which elements of theirs these are."""
        counts = [part.info.count for part in self.parts]
        begins = accumulate(counts, initial=0)
        spans = (
            (part, max(start - begin, 0), min(stop - begin, count))
            for part, begin, count in zip(self.parts, begins, counts, strict=False)
        )
        return [span for span in spans if span[1] < span[2]]


@dataclass(frozen=True, slots=True)
class Computed(_OfAnother):
    """Another tensor of the same shape after `function`, which maps each element by itself."""

    function: Callable[[StorageArray], StorageArray]

    @property
    def saved_as(self) -> DType:
        """Its own dtype."""
        return self.info.dtype

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`."""
        return self.function(self.base.read(start, stop))


@dataclass(frozen=True, slots=True)
class Widened(Computed):
    """Another tensor in a wider dtype, in which it is computed; written in the other's."""

    @property
    def saved_as(self) -> DType:
        """That of the other tensor."""
        return self.base.saved_as


@dataclass(frozen=True, slots=True)
class _Transposed(_OfAnother):
    """A matrix whose columns are the rows of another one. The other is read as a whole."""

    def read(self, start: int, stop: int) -> StorageArray:
        whole = self.base.read(0, self.base.info.count)
        return whole.reshape(self.base.info.shape).T.flat[start:stop]

    def expect(self, start: int, stop: int) -> None:
        self.base.expect(0, self.base.info.count)

    def forget(self, start: int, stop: int) -> None:
        self.base.forget(0, self.base.info.count)


def transposed(tensor: Tensor) -> Tensor:
    """The transpose of a matrix; of one that lies in a file, only the elements that are needed are read."""
    rows, columns = tensor.info.shape
    info = replace(tensor.info, shape=(columns, rows))
    if isinstance(tensor, _Transposed):
        return tensor.base.renamed(info.name)
    if not isinstance(tensor, StoredTensor):
        return _Transposed(info, tensor)
    by_row, by_column = tensor.strides or (columns, 1)
    strides = (by_column, by_row)
    return StoredTensor(info, tensor.file, tensor.offset, None if is_dense(info.shape, strides) else strides)


def reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in another shape."""
    info = replace(tensor.info, shape=shape)
    if isinstance(tensor, StoredTensor) and tensor.strides is None:
        return replace(tensor, info=info)
    return Section(info, tensor)


def stacked(name: str, parts: list[Tensor]) -> Tensor:
    """Tensors of one dtype and the same further dimensions as one tensor, one after the other."""
    if len(parts) == 1:
        return parts[0].renamed(name)
    first = parts[0].info
    shape = (sum(part.info.shape[0] for part in parts), *first.shape[1:])
    return Stacked(TensorInfo(name, first.dtype, shape), tuple(parts))


def rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Entries `start` to `stop` along the first dimension."""
    width = tensor.info.count // tensor.info.shape[0] if tensor.info.shape[0] else 0
    return Section(replace(tensor.info, shape=(stop - start, *tensor.info.shape[1:])), tensor, start * width)

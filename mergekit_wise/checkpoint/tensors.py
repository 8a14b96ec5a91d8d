"""Facts about tensors, apart from their bytes. Knows no file format."""

import math
from dataclasses import dataclass

from mergekit_wise.checkpoint.dtypes import DType
from mergekit_wise.checkpoint.mapped import MappedFile


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a tensor is: its name, element type and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements; 1 for a zero-dimensional tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, stored densely."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its elements lie: ``offset`` in bytes from the file's start, ``strides`` in elements.

    ``strides`` is None where the elements lie densely in C order, which is how nearly all do.
    """

    info: TensorInfo
    file: MappedFile
    offset: int
    strides: tuple[int, ...] | None = None


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a C-ordered tensor of this shape."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def lies_densely(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements with these strides fill one run of memory in C order."""
    if 0 in shape:
        return True
    wanted = dense_strides(shape)
    return all(size == 1 or have == want for size, have, want in zip(shape, strides, wanted, strict=True))

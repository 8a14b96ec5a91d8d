"""Tensors: element types, shapes and places, which of them can be true, and reading their elements in pieces.

Knows no file format and no arithmetic: which dtypes can be mixed, and how, is decided in ``merging``. Tensors that are
computed from others are in derived.py.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.wording import shown


@dataclass(frozen=True, slots=True)
class DType:
    """An element type under the names that safetensors (`name`) and torch (`torch`) give it.

    ``storage`` is the storage dtype: the little-endian NumPy dtype in which elements lie in memory. It is the type
    itself where NumPy has it, else an unsigned integer of the same width (for bfloat16 and the 8-bit floats).
    """

    name: str
    torch: str
    kind: Literal["float", "complex", "integer", "bool"]
    itemsize: int
    storage: str

    def __str__(self) -> str:
        return self.torch


# In the order of safetensors' own enumeration, which decides the order of tensors in a file: see safetensors.py.
DTYPES = (
    DType("BOOL", "bool", "bool", 1, "u1"),
    DType("U8", "uint8", "integer", 1, "u1"),
    DType("I8", "int8", "integer", 1, "i1"),
    DType("F8_E5M2", "float8_e5m2", "float", 1, "u1"),
    DType("F8_E4M3", "float8_e4m3fn", "float", 1, "u1"),
    DType("F8_E8M0", "float8_e8m0fnu", "float", 1, "u1"),
    DType("F8_E4M3FNUZ", "float8_e4m3fnuz", "float", 1, "u1"),
    DType("F8_E5M2FNUZ", "float8_e5m2fnuz", "float", 1, "u1"),
    DType("I16", "int16", "integer", 2, "<i2"),
    DType("U16", "uint16", "integer", 2, "<u2"),
    DType("F16", "float16", "float", 2, "<f2"),
    DType("BF16", "bfloat16", "float", 2, "<u2"),
    DType("I32", "int32", "integer", 4, "<i4"),
    DType("U32", "uint32", "integer", 4, "<u4"),
    DType("F32", "float32", "float", 4, "<f4"),
    DType("C64", "complex64", "complex", 8, "<c8"),
    DType("F64", "float64", "float", 8, "<f8"),
    DType("I64", "int64", "integer", 8, "<i8"),
    DType("U64", "uint64", "integer", 8, "<u8"),
)

BY_NAME = {dtype.name: dtype for dtype in DTYPES}
BY_TORCH = {dtype.torch: dtype for dtype in DTYPES}
RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The name, element type and shape of a tensor."""

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


StorageArray = NDArray[np.generic]
"""Elements in their dtype's storage dtype."""


@dataclass(frozen=True, slots=True)
class Tensor(ABC):
    """A tensor whose elements are read on request, flattened in C order."""

    info: TensorInfo

    @property
    @abstractmethod
    def files(self) -> tuple[MappedFile, ...]:
        """The files that hold the elements."""

    @property
    def saved_as(self) -> DType:
        """The dtype to write the tensor in; narrower than its own where elements are computed more precisely."""
        return self.info.dtype

    @abstractmethod
    def read(self, start: int, stop: int) -> StorageArray:
        """Elements `start` to `stop`: a 1-D array of the storage dtype, which must not be changed."""

    def expect(self, start: int, stop: int) -> None:  # noqa: B027 - not every kind can
        """Announce that all of these elements will be read soon."""

    def forget(self, start: int, stop: int) -> None:  # noqa: B027
        """Let the system reclaim the memory of elements that are not needed again."""

    def renamed(self, name: str) -> Self:
        """The same tensor under another name."""
        return replace(self, info=replace(self.info, name=name))


@dataclass(frozen=True, slots=True)
class StoredTensor(Tensor):
    """A tensor and where its elements lie: ``offset`` in bytes from the file's start, ``strides`` in elements.

    ``strides`` is None where the elements lie densely in C order, as nearly always.
    """

    file: MappedFile
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """The file."""
        return (self.file,)

    def read(self, start: int, stop: int) -> StorageArray:
        """A view of the file where the elements lie densely, else a copy of just these elements."""
        dtype = self.info.dtype
        if self.strides is None:
            return self.file.elements(dtype.storage, self.offset + start * dtype.itemsize, stop - start)
        if start >= stop:
            return np.empty(0, dtype.storage)
        span = 1 + sum((size - 1) * step for size, step in zip(self.info.shape, self.strides, strict=True))
        flat = self.file.elements(dtype.storage, self.offset, span)
        in_bytes = tuple(step * dtype.itemsize for step in self.strides)
        return as_strided(flat, self.info.shape, in_bytes, writeable=False).flat[start:stop]

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        if self.strides is None and stop > start:
            width = self.info.dtype.itemsize
            self.file.expect(self.offset + start * width, self.offset + stop * width)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        if self.strides is None:
            width = self.info.dtype.itemsize
            self.file.forget(self.offset + start * width, self.offset + stop * width)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements with these strides (in elements) fill one run of memory in C order."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return 0 in shape
        step *= size
    return True


# Checks of what a file declares about its tensors: a few bytes can declare anything. Whatever passes them can be
# computed with, allocated, written again and printed.

MAX_NAME = 1000
"""Characters of a tensor's name."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MAX_DIMENSIONS = 64
"""NumPy's limit."""

MAX_BYTES = 2**63 - 1

REPEATS = 16
SPARE = 1 << 26
"""Expanded tensors may take `REPEATS` times the file's size, and `SPARE` bytes besides."""

SHARED = 1024
"""How often the file's size all tensors may take, as one layer can be used under many names."""


def check_name(name: str) -> None:
    """Raise ValueError if `name` is too long, holds control characters, or is not Unicode."""
    if len(name) > MAX_NAME:
        raise ValueError(f"the name {shown(name)!r} is {len(name):,} characters long, where {MAX_NAME:,} are allowed")
    if CONTROL.search(name):
        raise ValueError(f"the name '{shown(name)}' holds control characters")
    check_text(name)


def check_text(text: str) -> None:
    """Raise ValueError if `text` holds halves of surrogate pairs, which JSON and pickle allow but UTF-8 does not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the text '{shown(text)}' is not Unicode") from None


def check_shape(name: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise ValueError if no machine could hold a tensor of this shape, even with its empty dimensions left out."""
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {shown(name)!r} has {len(shape):,} dimensions, where {MAX_DIMENSIONS} are allowed")
    if math.prod(size or 1 for size in shape) * itemsize > MAX_BYTES:
        raise ValueError(f"tensor {shown(name)!r} of shape {list(shape)} needs more bytes than can be counted")


def check_total(total: int, distinct: int, file_size: int) -> None:
    """Raise ValueError if tensors are out of all proportion to the file whose elements they view.

    They take `total` bytes, those that differ in what they view `distinct` bytes.
    """
    if distinct > REPEATS * file_size + SPARE or total > SHARED * file_size + SPARE:
        raise ValueError(
            f"its tensors would take {total:,} bytes, out of a file of {file_size:,}: "
            "it repeats the same elements (expanded tensors) too often to be plausible"
        )

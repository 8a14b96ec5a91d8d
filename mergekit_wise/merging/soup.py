"""Soups of several tensors: their mean, and Model Stock. Knows no file format, no names and no model.

A soup is computed while it is read, block by block, so that memory does not grow with the tensors or their number.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StorageArray, Tensor, TensorInfo
from mergekit_wise.merging.arithmetic import Scratch, decode, encode, rounded_to_odd
from mergekit_wise.merging.plan import mixed_dtype, narrower

TILE = 1 << 16
"""Elements of one tensor that are in memory at once."""

LARGE = 1 << 12
"""Elements from which on it is worth while to tell the system which pages are needed."""


def stock_share(cosine: float, count: int) -> float:
    """The share of the mean in Model Stock (Jang et al., ECCV 2024): N c / (1 + (N - 1) c).

    `cosine` is the mean over all pairs of the updates' cosines. Below 0, where updates point away from each other and
    the formula's geometry does not hold, the share is 0. One tensor alone has the share 1.
    """
    c = min(max(cosine, 0.0), 1.0)
    return count * c / (1 + (count - 1) * c) if count > 1 else 1.0


def mean_cosine(parts: Sequence[Tensor], anchor: Tensor) -> float:
    """The mean over all pairs of the cosines of ``part - anchor``, in float64.

    With unit vectors u it is (||sum u||^2 - N) / (N (N - 1)), which takes two passes however many tensors there are.
    The cosine with an update of zeros is 0, as in the authors' code. Elements that are not finite are left out. The
    sums are made of single operations of NumPy in a fixed order, so that they do not depend on the machine.
    """
    count = len(parts)
    if count < 2:
        return 1.0
    norms = [0.0] * count
    for span in _tiles(0, anchor.info.count, TILE):
        start = _numbers(anchor, *span)
        for number, part in enumerate(parts):
            norms[number] += _total(np.square(_update(part, start, *span)))
    moved = [number for number, norm in enumerate(norms) if norm > 0]
    squared = 0.0
    for span in _tiles(0, anchor.info.count, TILE):
        start = _numbers(anchor, *span)
        units = np.zeros_like(start)
        for number in moved:
            units += _update(parts[number], start, *span) / np.sqrt(norms[number])
        squared += _total(np.square(units))
    return (squared - len(moved)) / (count * (count - 1))


class StockShare:
    """The `stock_share` of a tensor, which is computed when it is first needed, by one of several threads."""

    def __init__(self, parts: Sequence[Tensor], anchor: Tensor) -> None:
        self._parts, self._anchor = parts, anchor
        self._lock = threading.Lock()
        self._cosine: float | None = None

    def value(self) -> float:
        """The share, in [0, 1]."""
        return stock_share(self.cosine(), len(self._parts))

    def cosine(self) -> float:
        """The `mean_cosine` of the updates."""
        with self._lock:
            if self._cosine is None:
                self._cosine = mean_cosine(self._parts, self._anchor)
            return self._cosine


@dataclass(frozen=True, slots=True)
class Averaged(Tensor):
    """``share * mean(parts) + (1 - share) * anchor``, or the mean alone where there is no anchor.

    Computed in float64, the sum in the order of the parts, and rounded once to the dtype. Elements of which all inputs
    hold the same bytes are copied.
    """

    parts: tuple[Tensor, ...]
    anchor: Tensor | None = None
    share: StockShare | None = None

    @property
    def saved_as(self) -> DType:
        """The dtype of the mean, also where it is computed in a wider one (`in_wider_dtype`)."""
        return shared_dtype([part.saved_as for part in self.parts]) or self.info.dtype

    def in_wider_dtype(self, dtype: DType) -> "Averaged":
        """The same rounded to `dtype` at once, if that has more significant bits, rather than to its own before."""
        narrow = self.info.dtype
        if narrow.kind != "float" or narrower(narrow, dtype) == dtype:
            return self
        return replace(self, info=replace(self.info, dtype=dtype))

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that it is computed from."""
        return self.parts if self.anchor is None else (*self.parts, self.anchor)

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """Those of the inputs."""
        return tuple(dict.fromkeys(file for tensor in self.inputs for file in tensor.files))

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`. Pages of the inputs are needed, and released, tile by tile."""
        found = np.empty(max(stop - start, 0), self.info.dtype.storage)
        share = 1.0 if self.share is None else self.share.value()
        for first, last in _tiles(start, stop, TILE):
            found[first - start : last - start] = self._tile(first, last, share)
        return found

    def _tile(self, first: int, last: int, share: float) -> StorageArray:
        total = _numbers(self.parts[0], first, last)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.parts[1:]:
                total += _numbers(part, first, last)
            total /= len(self.parts)
            if self.anchor is not None:
                total = share * total + (1 - share) * _numbers(self.anchor, first, last)
        result = _rounded(total, self.info.dtype)
        if all(tensor.info.dtype == self.info.dtype for tensor in self.inputs):
            _copy_equal(result, self.inputs, first, last)
        return result


def averaged(parts: Sequence[Tensor], anchor: Tensor | None = None) -> Tensor | None:
    """The mean of tensors of one shape or, with an anchor, Model Stock; None where the dtypes cannot be averaged.

    The dtype is torch's promotion of those in which the parts are saved.
    """
    dtype = shared_dtype([part.saved_as for part in parts])
    if dtype is None:
        return None
    info = TensorInfo(parts[0].info.name, dtype, parts[0].info.shape)
    share = None if anchor is None else StockShare(parts, anchor)
    return Averaged(info, tuple(parts), anchor, share)


def shared_dtype(dtypes: Sequence[DType]) -> DType | None:
    """The dtype of a mean, which is torch's promotion of all; None where they cannot be averaged."""
    pairs = [mixed_dtype(a, b) for a in dtypes for b in dtypes]
    return None if None in pairs else reduce(lambda a, b: mixed_dtype(a, b) or a, dtypes)


def sampled(tensor: Tensor, most: int) -> list[tuple[int, int]]:
    """Spans of at most `most` elements of a tensor in all, spread evenly over it: all of them if it has no more."""
    count, runs = tensor.info.count, 16
    if count <= most:
        return list(_tiles(0, count, most // runs))
    width = most // runs
    return [(at, at + width) for at in ((count - width) * run // (runs - 1) for run in range(runs))]


def numbers_of(tensor: Tensor, start: int, stop: int) -> NDArray[np.float64]:
    """A new array of the elements `start` to `stop` in float64; complex numbers are pairs."""
    return _numbers(tensor, start, stop)


def _tiles(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


def _numbers(tensor: Tensor, start: int, stop: int) -> NDArray[np.float64]:
    data = _expected(tensor, start, stop)
    found = np.array(decode(data, tensor.info.dtype, np.float64, Scratch(), 0), np.float64)
    _forget(tensor, start, stop)
    return found


def _update(part: Tensor, start: NDArray[np.float64], first: int, last: int) -> NDArray[np.float64]:
    """``part - start``, with zeros in place of what is not finite."""
    with np.errstate(invalid="ignore"):
        update = _numbers(part, first, last) - start
    update[~np.isfinite(update)] = 0
    return update


def _total(numbers: NDArray[np.float64]) -> float:
    """The sum by halves, whose order does not depend on the machine's instructions."""
    while len(numbers) > 1:
        half = len(numbers) // 2
        odd = numbers[2 * half :]
        numbers = numbers[:half] + numbers[half : 2 * half]
        numbers[: len(odd)] += odd
    return float(numbers[0]) if len(numbers) else 0.0


def _rounded(numbers: NDArray[np.float64], dtype: DType) -> StorageArray:
    """Numbers rounded once to the dtype: to nearest, ties to even."""
    # Bfloat16 is made from float32, and rounding twice would round ties that are none.
    exact = rounded_to_odd(numbers) if dtype.name == "BF16" else numbers
    return np.array(encode(exact, dtype, Scratch()))


def _copy_equal(result: StorageArray, inputs: Sequence[Tensor], first: int, last: int) -> None:
    """Copy the elements of which all inputs, of the result's dtype, hold the same bytes."""
    bits = f"u{result.itemsize}"
    data = np.array(_expected(inputs[0], first, last))
    _forget(inputs[0], first, last)
    equal = np.ones(len(data), np.bool_)
    for tensor in inputs[1:]:
        other = np.ascontiguousarray(_expected(tensor, first, last))
        equal &= data.view(bits) == other.view(bits)
        _forget(tensor, first, last)
    np.copyto(result, data, where=equal)


def _expected(tensor: Tensor, start: int, stop: int) -> StorageArray:
    if stop - start >= LARGE:
        tensor.expect(start, stop)
    return tensor.read(start, stop)


def _forget(tensor: Tensor, start: int, stop: int) -> None:
    if stop - start >= LARGE:
        tensor.forget(start, stop)

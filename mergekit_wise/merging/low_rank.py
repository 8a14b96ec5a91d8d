"""A tensor plus the product of two small matrices, as a low-rank adapter (LoRA, Hu et al., 2022) changes a weight.

Knows no file format and no names: models/adapters.py reads adapters, and models/adapted.py applies them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import BY_NAME, DType
from mergekit_wise.checkpoint.derived import rows
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StorageArray, Tensor
from mergekit_wise.merging.arithmetic import Scratch, decode

TILE = 1 << 14
"""Elements that are computed at once: their sums and products stay in the second-level cache of a core."""


@dataclass(frozen=True, slots=True)
class LowRank(Tensor):
    """``base + scale * left @ right``: left [rows, rank], right [rank, columns], base of rows * columns elements.

    Computed in float64 and rounded once to float32 (to float64 where the base is float64), so that no update is lost in
    a narrow dtype before it is mixed; `saved_as` is the base's dtype. Each element is the sum over the rank in its
    order, by single operations of NumPy, so it depends neither on which others are read nor on the machine, as it would
    with a BLAS library.
    """

    base: Tensor
    left: Tensor
    right: Tensor
    scale: float

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """Those of the base and of the two matrices."""
        return tuple(file for tensor in (self.base, self.left, self.right) for file in tensor.files)

    @property
    def saved_as(self) -> DType:
        """The base's dtype."""
        return self.base.saved_as

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`; computes only the rows in which the elements lie."""
        found = np.empty(max(stop - start, 0), self.info.dtype.storage)
        if stop <= start:
            return found
        width = self.right.info.shape[1]
        right = _numbers(self.right)
        height = max(1, TILE // width)
        for first in range(start // width, -(-stop // width), height):
            last = min(first + height, self.left.info.shape[0])
            begin, end = max(first * width, start), min(last * width, stop)
            product = _product(self.scale * _numbers(rows(self.left, first, last)), right).ravel()
            base = decode(self.base.read(begin, end), self.base.info.dtype, np.float64, Scratch(), 0)
            with np.errstate(over="ignore", invalid="ignore"):
                found[begin - start : end - start] = base + product[begin - first * width : end - first * width]
        return found

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        self.base.expect(start, stop)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        self.base.forget(start, stop)


def low_rank(base: Tensor, left: Tensor, right: Tensor, scale: float) -> LowRank:
    """``base + scale * left @ right`` under the base's name."""
    dtype = BY_NAME["F64" if base.info.dtype.name == "F64" else "F32"]
    return LowRank(replace(base.info, dtype=dtype), base, left, right, scale)


def _numbers(matrix: Tensor) -> NDArray[np.float64]:
    flat = decode(matrix.read(0, matrix.info.count), matrix.info.dtype, np.float64, Scratch(), 0)
    return flat.astype(np.float64, copy=False).reshape(matrix.info.shape)


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix product, summed over the rank from the first term to the last."""
    with np.errstate(over="ignore", invalid="ignore"):
        total: NDArray[np.float64] = left[:, :1] * right[0]
        term = np.empty_like(total)
        for k in range(1, len(right)):
            np.multiply(left[:, k : k + 1], right[k], out=term)
            np.add(total, term, out=total)
    return total

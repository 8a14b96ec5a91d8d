"""(1 - alpha) * a + alpha * b on arrays, in the exact arithmetic that the tool promises. Knows no file and no name.

Two products and one sum, each rounded in float32 (float64 where an input is float64), the coefficients computed in
float64 first, one rounding (nearest, ties to even) to the output's dtype. NumPy runs the three as separate loops, so
nothing is fused, and the bytes do not depend on the size of a block or on the machine.

Every function writes into buffers of a `Scratch`, which a thread uses again for every block: fresh memory for each
would cost several times what the arithmetic does.
"""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.merging.eight_bit import from_eight_bit, to_eight_bit
from mergekit_wise.merging.half import from_half, to_half

StorageArray = NDArray[np.generic]
Numbers = NDArray[np.float32] | NDArray[np.float64]
Real = type[np.float32] | type[np.float64]


class Scratch:
    """Buffers by number, each as large as it was ever asked to be. Not for several threads at once."""

    def __init__(self) -> None:
        self._buffers: dict[int, NDArray[np.uint8]] = {}

    def take(self, number: int, dtype: DTypeLike, count: int) -> NDArray[np.generic]:
        """An array of `count` elements in buffer `number`; what was in it is lost."""
        size = count * np.dtype(dtype).itemsize
        if number not in self._buffers or len(self._buffers[number]) < size:
            self._buffers[number] = np.empty(size, np.uint8)
        return self._buffers[number][:size].view(dtype)


def combine(x: Numbers, y: Numbers, alpha: float, scratch: Scratch) -> Numbers:
    """(1 - alpha) * x + alpha * y (WiSE-FT, Eq. 1), in buffer 2; x and y must not lie in buffers 2 or 3."""
    kind = x.dtype.type
    total, product = scratch.take(2, kind, len(x)), scratch.take(3, kind, len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(x, kind(1 - alpha), out=total)
        np.multiply(y, kind(alpha), out=product)
        np.add(total, product, out=total)
    return total  # type: ignore[return-value]


def mix_fisher(x: Numbers, y: Numbers, fx: Numbers, fy: Numbers, alpha: float) -> Numbers:
    """((1-alpha) Fx x + alpha Fy y) / ((1-alpha) Fx + alpha Fy), each operation rounded: the authors' Fisher merge."""
    kind = x.dtype.type
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        first, second = fx * kind(1 - alpha), fy * kind(alpha)
        return np.asarray((first * x + second * y) / (first + second))


def distance(x: Numbers, y: Numbers, scratch: Scratch) -> float:
    """The sum of (y - x)^2; uses buffer 2."""
    difference = scratch.take(2, x.dtype, len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(y, x, out=difference)
    return squares(difference)  # type: ignore[arg-type]


def squares(numbers: Numbers) -> float:
    """The sum of the squares."""
    # einsum: one pass, no copy, and one thread, where a BLAS dot product would start threads of its own.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.einsum("i,i->", numbers, numbers))


def computing_type(dtypes: tuple[DType, DType]) -> Real:
    """float64 where an input is float64, else float32."""
    return np.float64 if any(dtype.name == "F64" for dtype in dtypes) else np.float32


def decode(storage: StorageArray, dtype: DType, kind: Real, scratch: Scratch, number: int) -> Numbers:
    """The numbers that `storage` stands for, exactly; complex ones as pairs.

    A view of `storage` where nothing changes, else in buffer `number` (float64 from a narrower dtype: a new array).
    """
    numbers: Numbers
    match dtype.name:
        case "BF16":
            wide = scratch.take(number, np.uint32, len(storage))
            np.copyto(wide, storage)
            np.left_shift(wide, 16, out=wide)
            numbers = wide.view(np.float32)
        case "F16":
            numbers = from_half(storage, scratch.take(number, np.int32, len(storage)))
        case "F8_E4M3" | "F8_E5M2":
            numbers = from_eight_bit(storage, dtype.name)
        case "C64":
            numbers = np.ascontiguousarray(storage).view(np.float32)
        case _:
            return storage.astype(kind, copy=False)  # type: ignore[return-value]
    return numbers if kind is np.float32 else numbers.astype(np.float64)


def encode(numbers: Numbers, dtype: DType, scratch: Scratch) -> StorageArray:
    """Round to `dtype`, nearest and ties to even; too large becomes infinite, or NaN where there is no infinity.

    The result may lie in `numbers` or in buffers 3 to 5, so it must be used before the scratch is.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        match dtype.name:
            case "BF16":
                return _to_bfloat16(numbers.astype(np.float32, copy=False), scratch)
            case "F16" if numbers.dtype == np.float32:
                rounded, sign = (scratch.take(place, np.uint32, len(numbers)) for place in (3, 4))
                return to_half(numbers, rounded, sign, scratch.take(5, np.uint16, len(numbers)))
            case "F8_E4M3" | "F8_E5M2":
                return to_eight_bit(numbers, dtype.name)
            case "C64":
                return numbers.astype(np.float32, copy=False).view(np.complex64)
            case _:
                return numbers.astype(dtype.storage, copy=False)


def _to_bfloat16(numbers: NDArray[np.float32], scratch: Scratch) -> StorageArray:
    bits = numbers.view(np.uint32)
    rounded = scratch.take(3, np.uint32, len(bits))
    result = scratch.take(5, np.uint16, len(bits))
    # Adding half of the last kept place, less one unless that place is odd, carries exactly where rounding goes up.
    np.right_shift(bits, 16, out=rounded)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, np.uint32(0x7FFF), out=rounded)
    np.add(rounded, bits, out=rounded)
    np.right_shift(rounded, 16, out=rounded)
    np.copyto(result, rounded, casting="unsafe")
    if np.isnan(numbers.max(initial=0)):  # the largest of numbers is NaN if any of them is
        result[np.isnan(numbers)] = 0x7FC0
    return result

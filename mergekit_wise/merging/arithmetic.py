"""The method: (1 - alpha) * a + alpha * b on arrays, in the exact arithmetic that the tool guarantees.

Two products and one sum, each rounded in float32 (in float64 where an input is float64). The coefficients are computed
in float64 first, and the result is rounded once (to nearest, ties to even) to the output's dtype. NumPy runs the three
operations as separate loops, so nothing is fused, and the bytes depend neither on the block size nor on the machine.

This is the NumPy form and the reference. backends.py chooses between it and its faster equivalents: the compiled one
(_native.c) and that on a torch device (torch_backend.py).

Functions write into buffers of a `Scratch`, which a thread reuses for every block: to allocate memory for each would
cost several times what the arithmetic does.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mergekit_wise.checkpoint import DType

StorageArray = NDArray[np.generic]
"""Elements of a `DType` in its storage dtype."""

Numbers = NDArray[np.float32] | NDArray[np.float64]
Real = type[np.float32] | type[np.float64]

Sums = tuple[float, float]
"""The sums of (b - a)^2 and of a^2 over all elements; not finite if an input is not."""


class Scratch:
    """Numbered buffers, each as large as the largest array taken from it. A scratch belongs to one thread."""

    def __init__(self) -> None:
        self._buffers: dict[int, NDArray[np.uint8]] = {}

    def take(self, number: int, dtype: DTypeLike, count: int) -> NDArray[np.generic]:
        """An array of `count` elements in buffer `number`; the buffer's earlier content is lost."""
        size = count * np.dtype(dtype).itemsize
        if number not in self._buffers or len(self._buffers[number]) < size:
            self._buffers[number] = np.empty(size, np.uint8)
        return self._buffers[number][:size].view(dtype)


Mix = Callable[[StorageArray, StorageArray, tuple[DType, DType], DType, float, Scratch], tuple[StorageArray, Sums]]
"""The signature of `mix`, which every backend implements with the same result."""


def mix(
    a: StorageArray, b: StorageArray, dtypes: tuple[DType, DType], out: DType, alpha: float, scratch: Scratch
) -> tuple[StorageArray, Sums]:
    """(1 - alpha) * a + alpha * b in the storage dtype of `out`, and sums over the inputs.

    `a` and `b` are 1-D arrays in the storage dtypes of `dtypes`. The result may lie in the scratch, so it is valid
    until the thread mixes again.
    """
    real = computing_type(dtypes)
    x, y = decode(a, dtypes[0], real, scratch, 0), decode(b, dtypes[1], real, scratch, 1)
    sums = (squared_distance(x, y, scratch), squared_norm(x))
    return encode(combine(x, y, alpha, scratch), out, scratch), sums


def combine(x: Numbers, y: Numbers, alpha: float, scratch: Scratch) -> Numbers:
    """(1 - alpha) * x + alpha * y (WiSE-FT, Eq. 1), in buffer 2; x and y must not lie in buffers 2 or 3."""
    real = x.dtype.type
    total, product = scratch.take(2, real, len(x)), scratch.take(3, real, len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(x, real(1 - alpha), out=total)
        np.multiply(y, real(alpha), out=product)
        np.add(total, product, out=total)
    return total  # type: ignore[return-value]


def combine_fisher(x: Numbers, y: Numbers, fx: Numbers, fy: Numbers, alpha: float) -> Numbers:
    """((1-alpha) Fx x + alpha Fy y) / ((1-alpha) Fx + alpha Fy), each operation rounded: the authors' Fisher merge."""
    real = x.dtype.type
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        first, second = fx * real(1 - alpha), fy * real(alpha)
        return np.asarray((first * x + second * y) / (first + second))


def squared_distance(x: Numbers, y: Numbers, scratch: Scratch) -> float:
    """The sum of (y - x)^2; uses buffer 2."""
    difference = scratch.take(2, x.dtype, len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(y, x, out=difference)
    return squared_norm(difference)  # type: ignore[arg-type]


def squared_norm(numbers: Numbers) -> float:
    """The sum of the squares."""
    # einsum: one pass, no copy, and one thread, where a BLAS dot product would start threads of its own.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.einsum("i,i->", numbers, numbers))


def computing_type(dtypes: tuple[DType, DType]) -> Real:
    """float64 where an input is float64, else float32."""
    return np.float64 if any(dtype.name == "F64" for dtype in dtypes) else np.float32


def decode(storage: StorageArray, dtype: DType, real: Real, scratch: Scratch, number: int) -> Numbers:
    """The exact numbers that `storage` holds; complex numbers become pairs.

    Returns a view of `storage` where nothing changes, else an array in buffer `number` (bfloat16 as float32) or a new
    one.
    """
    match dtype.name:
        case "BF16":
            wide = scratch.take(number, np.uint32, len(storage))
            np.copyto(wide, storage)
            np.left_shift(wide, 16, out=wide)
            storage = wide.view(np.float32)
        case "F8_E4M3" | "F8_E5M2":
            storage = storage.view(_eight_bit(dtype))
        case "C64":
            storage = np.ascontiguousarray(storage).view(np.float32)
    return storage.astype(real, copy=False)  # type: ignore[return-value]


def encode(numbers: Numbers, dtype: DType, scratch: Scratch) -> StorageArray:
    """Round to `dtype`, to nearest with ties to even; overflow gives infinity, or NaN where the dtype has no infinity.

    The result may lie in `numbers` or in buffers 3 and 4, so it must be used before the scratch is used again.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        match dtype.name:
            case "BF16":
                return _to_bfloat16(numbers.astype(np.float32, copy=False), scratch)
            case "F8_E4M3" | "F8_E5M2":
                return _to_eight_bit(numbers, dtype)
            case "C64":
                return numbers.astype(np.float32, copy=False).view(np.complex64)
            case _:
                return numbers.astype(dtype.storage, copy=False)


def _to_bfloat16(numbers: NDArray[np.float32], scratch: Scratch) -> StorageArray:
    bits = numbers.view(np.uint32)
    rounded = scratch.take(3, np.uint32, len(bits))
    result = scratch.take(4, np.uint16, len(bits))
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


def _eight_bit(dtype: DType) -> type[np.generic]:
    """The NumPy dtype of an 8-bit float, which a library adds; it is imported only where there are such tensors."""
    import ml_dtypes

    found: type[np.generic] = ml_dtypes.float8_e4m3fn if dtype.name == "F8_E4M3" else ml_dtypes.float8_e5m2
    return found


def _to_eight_bit(numbers: Numbers, dtype: DType) -> StorageArray:
    # The library converts float64 by way of float32, which would round twice.
    narrow = rounded_to_odd(numbers) if numbers.dtype == np.float64 else numbers.astype(np.float32)
    codes = narrow.astype(_eight_bit(dtype)).view(np.uint8)
    codes[np.isnan(numbers)] |= 0x7F  # one NaN for each sign
    return codes


def rounded_to_odd(numbers: Numbers) -> NDArray[np.float32]:
    """Numbers in float32 from which a narrower dtype is rounded as if from the numbers themselves.

    Rounded towards zero, and the last place set if anything was lost, they keep on which side of a tie they were.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = numbers.astype(np.float32)
        too_far, inexact = np.abs(narrow) > np.abs(numbers), narrow != numbers
    bits = narrow.view(np.uint32)
    bits -= too_far
    bits |= inexact
    return narrow

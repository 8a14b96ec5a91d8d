"""float16 to float32 and back, in steps over whole arrays: NumPy's own conversion goes element by element.

The exponent of float16 has five bits and is biased by 15, that of float32 eight and 127; both have their mantissa's
highest bits first. So a shift by 13 bits puts one in the place of the other, and a factor of 2^112 mends the bias.
"""

import numpy as np
from numpy.typing import NDArray

BIAS = np.float32(2.0**112)
SMALLEST_NORMAL = np.float32(2.0**-14)
TOO_LARGE = np.float32(65520)
"""The smallest number that rounds to infinity."""


def from_half(halves: NDArray[np.generic], work: NDArray[np.generic]) -> NDArray[np.float32]:
    """The same numbers as float32, in `work`, an int32 array of the same length."""
    np.copyto(work, halves.view(np.int16))  # the sign fills the upper half
    np.left_shift(work, 13, out=work)
    np.bitwise_and(work, np.int32(-0x70000001), out=work)  # and is taken out of the exponent's upper bits
    numbers: NDArray[np.float32] = work.view(np.float32)
    np.multiply(numbers, BIAS, out=numbers)
    # Infinity and NaN have the highest exponent, which this makes 2^16 and above.
    if len(numbers) and not (numbers.max() < 65536 and numbers.min() > -65536):
        np.copyto(numbers, halves)
    return numbers


def to_half(
    numbers: NDArray[np.float32] | NDArray[np.float64],
    rounded: NDArray[np.generic],
    sign: NDArray[np.generic],
    result: NDArray[np.generic],
) -> NDArray[np.generic]:
    """The nearest float16 numbers, ties to even, in `result` (uint16); `rounded` and `sign` are uint32 to work in."""
    bits = numbers.view(np.uint32)
    # Half of the last kept place, less one unless that place is odd, carries exactly where rounding goes up.
    np.right_shift(bits, 13, out=rounded)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, np.uint32((0x0FFF - (112 << 23)) % 2**32), out=rounded)
    np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=sign)
    np.add(rounded, sign, out=rounded)
    np.right_shift(rounded, 13, out=rounded)
    # What has no normal float16 is left to NumPy: subnormal, too large, infinite, NaN. Compared as bits.
    small = int(SMALLEST_NORMAL.view(np.uint32))
    span = int(TOO_LARGE.view(np.uint32)) - small
    np.subtract(sign, np.uint32(small), out=sign)
    odd_ones = np.flatnonzero(sign >= np.uint32(span))
    np.right_shift(bits, 16, out=sign)
    np.bitwise_and(sign, 0x8000, out=sign)
    np.bitwise_or(rounded, sign, out=rounded)
    np.copyto(result, rounded, casting="unsafe")
    halves = result.view(np.float16)
    halves[odd_ones] = numbers[odd_ones].astype(np.float16)
    return halves

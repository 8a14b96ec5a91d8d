"""The 8-bit floats e4m3fn and e5m2, which NumPy does not have. All 256 codes fit in a table."""

from functools import cache

import numpy as np
from numpy.typing import NDArray


def from_eight_bit(codes: NDArray[np.generic], name: str) -> NDArray[np.float32]:
    """The numbers that `codes`, uint8, stand for in the dtype ``F8_E4M3`` or ``F8_E5M2``."""
    return _values(name)[codes]  # type: ignore[no-any-return]


def to_eight_bit(numbers: NDArray[np.float32] | NDArray[np.float64], name: str) -> NDArray[np.uint8]:
    """Codes of the nearest numbers, ties to even; what is too large becomes NaN in e4m3fn and infinite in e5m2."""
    finite = 127 if name == "F8_E4M3" else 124
    values = _values(name)[:finite].astype(np.float64)
    # One step beyond the largest finite number: what rounds there overflows, to NaN or to infinity.
    steps = np.append(values, 2 * values[-1] - values[-2])
    middles = (steps[1:] + steps[:-1]) / 2
    size = np.abs(numbers)
    codes = np.searchsorted(middles, size)
    tie = size == middles[np.minimum(codes, len(middles) - 1)]
    codes += tie & (codes % 2 == 1)
    result = codes.astype(np.uint8)
    result[np.isnan(numbers)] = 127
    result[np.signbit(numbers)] |= 0x80
    return result


@cache
def _values(name: str) -> NDArray[np.float32]:
    mantissa_bits, bias = (3, 7) if name == "F8_E4M3" else (2, 15)
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits) + (exponent > 0)
    values = fraction * np.exp2(np.maximum(exponent, 1) - float(bias))
    if name == "F8_E4M3":
        values[127] = np.nan
    else:
        values[124], values[125:] = np.inf, np.nan
    return np.concatenate([values, -values]).astype(np.float32)

"""(1 - alpha) * a + alpha * b on arrays, in the exact arithmetic that the tool promises. Knows no file and no name.

Two products and one sum, each rounded in float32 (float64 where an input is float64), the coefficients computed in
float64 first, one rounding (nearest, ties to even) to the output's dtype. NumPy runs the three as separate loops, so
nothing is fused, and the bytes do not depend on the size of a chunk or on the machine.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType

Carrier = NDArray[np.generic]
Numbers = NDArray[np.float32] | NDArray[np.float64]


def mix(a: Carrier, b: Carrier, dtypes: tuple[DType, DType], out: DType, alpha: float) -> Carrier:
    """Mix two 1-D arrays of carriers of `dtypes`, of one length, into a carrier of `out` (WiSE-FT, Eq. 1)."""
    kind = computing_type(dtypes)
    x, y = decode(a, dtypes[0], kind), decode(b, dtypes[1], kind)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.multiply(x, kind(1 - alpha))
        total += np.multiply(y, kind(alpha))
        return encode(total, out)


def mix_fisher(x: Numbers, y: Numbers, fx: Numbers, fy: Numbers, alpha: float) -> Numbers:
    """((1-alpha) Fx x + alpha Fy y) / ((1-alpha) Fx + alpha Fy), each operation rounded: the authors' Fisher merge."""
    kind = x.dtype.type
    first, second = fx * kind(1 - alpha), fy * kind(alpha)
    return np.asarray((first * x + second * y) / (first + second))


def computing_type(dtypes: tuple[DType, DType]) -> type[np.float32] | type[np.float64]:
    """float64 where an input is float64, else float32."""
    return np.float64 if any(dtype.name == "F64" for dtype in dtypes) else np.float32


def decode(carrier: Carrier, dtype: DType, kind: type[np.float32] | type[np.float64]) -> Numbers:
    """The numbers that `carrier` stands for, exactly; complex ones as pairs. A view where nothing changes."""
    match dtype.name:
        case "BF16":
            wide = np.left_shift(carrier, 16, dtype=np.uint32, casting="unsafe")
            numbers: Numbers = wide.view(np.float32)
        case "F8_E4M3" | "F8_E5M2":
            numbers = _eight_bit_values(dtype.name)[carrier]
        case "C64":
            numbers = np.ascontiguousarray(carrier).view(np.float32)
        case _:
            return carrier.astype(kind, copy=False)  # type: ignore[return-value]
    return numbers if kind is np.float32 else numbers.astype(np.float64)


def encode(numbers: Numbers, dtype: DType) -> Carrier:
    """Round to `dtype`, nearest and ties to even; too large becomes infinite, or NaN where there is no infinity."""
    match dtype.name:
        case "BF16":
            return _to_bfloat16(numbers)
        case "F8_E4M3" | "F8_E5M2":
            return _to_eight_bit(numbers, dtype.name)
        case "C64":
            return numbers.astype(np.float32, copy=False).view(np.complex64)
        case _:
            return numbers.astype(dtype.carrier, copy=False)


def _to_bfloat16(numbers: Numbers) -> Carrier:
    bits = numbers.astype(np.float32, copy=False).view(np.uint32)
    # Adding half of the last kept place, less one unless that place is odd, carries exactly where rounding goes up.
    rounded = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    rounded += bits
    rounded >>= 16
    result = rounded.astype(np.uint16)
    nan = np.isnan(numbers)
    if nan.any():
        result[nan] = 0x7FC0
    return result


@cache
def _eight_bit_values(name: str) -> NDArray[np.float32]:
    """The numbers of all 256 codes of an 8-bit float."""
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


def _to_eight_bit(numbers: Numbers, name: str) -> Carrier:
    finite = 127 if name == "F8_E4M3" else 124
    values = _eight_bit_values(name)[:finite].astype(np.float64)
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

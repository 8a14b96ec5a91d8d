"""Tests of the arithmetic against torch, and against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.checkpoint import BY_NAME, TensorInfo
from mergekit_wise.merging import arithmetic
from mergekit_wise.merging.arithmetic import Scratch, decode, encode
from mergekit_wise.merging.plan import MIXABLE, mixed_dtype
from mergekit_wise.merging.torch_backend import as_stored, as_tensor, open_torch

ALPHAS = (0.1, 0.3, 0.5, 2 / 3)
FLOATS = [name for name in MIXABLE if name != "C64"]


def mix(a, b, dtypes, out, alpha):
    """One block, mixed by NumPy."""
    return arithmetic.mix(a, b, dtypes, out, alpha, Scratch())[0]


def codes(name, count=4096, seed=0):
    """Bit patterns of a dtype: all of them where they are few, with infinities, NaN and subnormals among them."""
    dtype = BY_NAME[name]
    rng = np.random.default_rng(seed)
    if dtype.itemsize == 1:
        return rng.permutation(np.arange(256, dtype=np.uint8)).view(dtype.storage)
    if dtype.itemsize == 2:
        return rng.permutation(np.arange(65536, dtype=np.uint16)).view(dtype.storage)
    return rng.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype.storage)


def as_torch(storage, name):
    return torch.from_numpy(storage.copy().view(np.uint8)).view(getattr(torch, BY_NAME[name].torch))


def authors_formula(a, b, alpha, name):
    """What the WiSE-FT authors' code does, in float32 (float64 for float64), then rounded by torch."""
    wide = {"F64": torch.float64, "C64": torch.complex64}.get(name, torch.float32)
    return ((1 - alpha) * as_torch(a, name).to(wide) + alpha * as_torch(b, name).to(wide)).to(
        getattr(torch, BY_NAME[name].torch)
    )


def same_bits_or_both_nan(ours, theirs):
    a, b = ours.view(torch.uint8), theirs.view(torch.uint8)
    differ = (a != b).reshape(len(ours), -1).any(dim=1)
    return not (differ & ~(torch.isnan(ours.to(torch.complex64)) & torch.isnan(theirs.to(torch.complex64)))).any()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", MIXABLE)
def test_the_bytes_are_those_of_the_authors_formula(name, alpha):
    """All dtypes that can be mixed are compared, over all bit patterns of the 8- and 16-bit floats."""
    a, b = codes(name, seed=1), codes(name, seed=2)
    dtype = BY_NAME[name]
    mixed = mix(a, b, (dtype, dtype), dtype, alpha)
    assert same_bits_or_both_nan(as_torch(mixed, name), authors_formula(a, b, alpha, name))


@pytest.mark.parametrize("name", MIXABLE)
def test_the_torch_backend_gives_the_same_bytes(name):
    """It is run on the CPU, which every machine has; a GPU runs the same three operations."""
    a, b = codes(name, seed=3), codes(name, seed=4)
    dtype = BY_NAME[name]
    ours = mix(a, b, (dtype, dtype), dtype, 0.3)
    theirs, sums = open_torch("cpu")(a, b, (dtype, dtype), dtype, 0.3, Scratch())
    _, wanted = arithmetic.mix(a, b, (dtype, dtype), dtype, 0.3, Scratch())
    assert sums == pytest.approx(wanted, rel=1e-4, nan_ok=True)
    assert same_bits_or_both_nan(as_torch(ours, name), as_torch(theirs, name))


@pytest.mark.parametrize("name", FLOATS)
def test_decoding_is_exact_and_encoding_turns_it_back(name):
    """Every bit pattern has the value that torch gives it, and encoding restores the pattern."""
    dtype, storage = BY_NAME[name], codes(name)
    kind = np.float64 if name == "F64" else np.float32
    numbers = decode(storage, dtype, kind, Scratch(), 0)
    np.testing.assert_array_equal(numbers, as_torch(storage, name).to(torch.float64).numpy())
    back = encode(numbers, dtype, Scratch())
    finite = ~np.isnan(numbers)
    np.testing.assert_array_equal(back[finite], storage[finite])


@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.sampled_from(["BF16", "F16", "F8_E4M3", "F8_E5M2"]))
def test_rounding_is_to_nearest_and_ties_to_even_as_in_torch(numbers, name):
    """Any float32 number is rounded as torch rounds it, subnormal and too large numbers included."""
    values = np.array(numbers, np.float32)
    if name == "F8_E4M3":  # beyond its largest number torch's versions differ: see the next test
        values = np.clip(values, -448, 448)
    with np.errstate(over="ignore"):
        ours = as_torch(encode(values, BY_NAME[name], Scratch()), name)
    assert same_bits_or_both_nan(ours, torch.from_numpy(values).to(getattr(torch, BY_NAME[name].torch)))


def eight_bit_values(name):
    """The values of the codes 0 to 127, from the definition of the dtype: exponent, mantissa, infinity and NaN."""
    mantissa_bits, bias, infinity = (3, 7, None) if name == "F8_E4M3" else (2, 15, 124)
    values = []
    for code in range(128):
        exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        fraction = mantissa / (1 << mantissa_bits) + (exponent > 0)
        values.append(fraction * 2.0 ** (max(exponent, 1) - bias))
    if infinity is None:
        values[127] = np.nan
    else:
        values[infinity:] = [np.inf, np.nan, np.nan, np.nan]
    return np.array(values)


def eight_bit_codes(numbers, name):
    """The codes of the nearest values, by a search among the midpoints between them, in float64."""
    finite = 127 if name == "F8_E4M3" else 124
    values = eight_bit_values(name)[:finite]
    steps = np.append(values, 2 * values[-1] - values[-2])  # numbers that round to the last step overflow
    middles = (steps[1:] + steps[:-1]) / 2
    size = np.abs(numbers.astype(np.float64))
    codes = np.searchsorted(middles, size)
    codes += (size == middles[np.minimum(codes, len(middles) - 1)]) & (codes % 2 == 1)
    codes[np.isnan(numbers)] = 127
    return (codes + 128 * np.signbit(numbers)).astype(np.uint8)


EIGHT_BIT = ("F8_E4M3", "F8_E5M2")


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_every_8_bit_code_is_decoded_to_its_defined_value(name):
    """All 256 codes are compared bit for bit, signed zeros and NaN included."""
    values = eight_bit_values(name)
    wanted = np.concatenate([values, -values])
    for real in (np.float32, np.float64):
        ours = decode(np.arange(256, dtype=np.uint8), BY_NAME[name], real, Scratch(), 0)
        assert ours.tobytes() == wanted.astype(real).tobytes()


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_numbers_near_every_8_bit_value_and_tie_are_rounded_once(name, real):
    """Each value, each tie between two and their next neighbours, of both signs, in the type that is computed in.

    For float64 this excludes a rounding by way of float32, which moves numbers next to a tie onto it.
    """
    finite = 127 if name == "F8_E4M3" else 124
    values = eight_bit_values(name)[:finite]
    steps = np.append(values, 2 * values[-1] - values[-2])
    points = [np.concatenate([steps, (steps[1:] + steps[:-1]) / 2]).astype(real)]
    for direction in (np.inf, -np.inf):
        near = points[0]
        for _ in range(3):
            near = np.nextafter(near, real(direction))
            points.append(near)
    special = np.array([0.0, np.inf, np.nan, np.finfo(real).max, np.finfo(real).smallest_subnormal], real)
    rng = np.random.default_rng(0)
    usual = (2.0 ** rng.uniform(-20, 18, 100_000)).astype(real)
    numbers = np.concatenate([*points, special, usual])
    numbers = np.concatenate([numbers, -numbers])
    np.testing.assert_array_equal(encode(numbers, BY_NAME[name], Scratch()), eight_bit_codes(numbers, name))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_float32_numbers_are_rounded_to_8_bits_as_defined(name):
    """Every sign, exponent and mantissa of 7 bits, with the lower bits at, below and above a tie of any mantissa."""
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    numbers = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | lower).reshape(-1).view(np.float32)
    np.testing.assert_array_equal(encode(numbers, BY_NAME[name], Scratch()), eight_bit_codes(numbers, name))


def test_what_is_too_large_for_float8_e4m3_becomes_nan():
    """It has no infinity; the largest number in its place would hide the overflow."""
    beyond = encode(np.array([464, 465, -1000, np.inf], np.float32), BY_NAME["F8_E4M3"], Scratch())
    np.testing.assert_array_equal(as_torch(beyond, "F8_E4M3").float(), [448, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tensor_survives_the_way_to_torch_and_back(name):
    """Every dtype keeps its name, shape and bits, in the storage dtype of checkpoints."""
    storage = np.arange(48, dtype=np.uint8).view(BY_NAME[name].storage) % 2 if name == "BOOL" else codes(name, 6)[:6]
    info = TensorInfo("w", BY_NAME[name], (2, 3))
    tensor = as_tensor(info, storage[:6])
    back, stored = as_stored("w", tensor)
    assert (back, tuple(tensor.shape)) == (info, (2, 3))
    assert stored.tobytes() == storage[:6].tobytes()


NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(NUMBERS, NUMBERS, st.floats(0, 1))
def test_float32_is_two_products_and_a_sum_each_rounded_once(a, b, alpha):
    """The result is that of exact rational arithmetic: no fused multiply-add, no further rounding of alpha."""

    def rounded(x: Fraction) -> Fraction:
        # Through float64 the second rounding could differ; there it is refused as an oracle.
        narrow = np.float32(float(x))
        if Fraction(float(x)) != x:
            around = [np.nextafter(narrow, np.float32(s)) for s in (-np.inf, np.inf)]
            narrow = min(
                [narrow, *around], key=lambda v: (abs(Fraction(float(v)) - x), np.uint32(v.view(np.uint32)) & 1)
            )
        return Fraction(float(narrow))

    first, second = (Fraction(float(np.float32(c))) for c in (1 - alpha, alpha))
    wanted = rounded(rounded(first * Fraction(a)) + rounded(second * Fraction(b)))
    dtype = BY_NAME["F32"]
    arrays = np.array([a], np.float32), np.array([b], np.float32)
    assert Fraction(float(mix(*arrays, (dtype, dtype), dtype, alpha)[0])) == wanted


def test_mixed_dtype_is_torchs_promotion():
    """All pairs of mixable real dtypes are compared; 8-bit floats mix only with themselves."""
    for a in FLOATS:
        for b in FLOATS:
            ours = mixed_dtype(BY_NAME[a], BY_NAME[b])
            if a != b and "F8" in a + b:
                assert ours is None
                continue
            theirs = torch.promote_types(getattr(torch, BY_NAME[a].torch), getattr(torch, BY_NAME[b].torch))
            assert f"torch.{ours}" == str(theirs)


@pytest.mark.parametrize("pair", [("I64", "F32"), ("BOOL", "BOOL"), ("C64", "F32"), ("F8_E8M0", "F8_E8M0")])
def test_some_dtypes_cannot_be_mixed(pair):
    """Integers, booleans, complex with real numbers and dtypes of exponents alone cannot be mixed."""
    assert mixed_dtype(*(BY_NAME[name] for name in pair)) is None

"""The arithmetic against torch, and against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.checkpoint import BY_NAME
from mergekit_wise.merging.arithmetic import Scratch, combine, computing_type, decode, encode
from mergekit_wise.merging.backends import mix_on_cpu
from mergekit_wise.merging.dtypes import MIXABLE, mixed_dtype
from mergekit_wise.merging.torch_backend import open_torch

ALPHAS = (0.1, 0.3, 0.5, 2 / 3)
FLOATS = [name for name in MIXABLE if name != "C64"]


def mix(a, b, dtypes, out, alpha):
    """As a block of a merge is mixed."""
    scratch, kind = Scratch(), computing_type(dtypes)
    x, y = decode(a, dtypes[0], kind, scratch, 0), decode(b, dtypes[1], kind, scratch, 1)
    return encode(combine(x, y, alpha, scratch), out, scratch)


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
    """For every dtype that can be mixed; over all bit patterns of the 8- and 16-bit floats."""
    a, b = codes(name, seed=1), codes(name, seed=2)
    dtype = BY_NAME[name]
    mixed = mix(a, b, (dtype, dtype), dtype, alpha)
    assert same_bits_or_both_nan(as_torch(mixed, name), authors_formula(a, b, alpha, name))


@pytest.mark.parametrize("name", MIXABLE)
def test_the_torch_engine_gives_the_same_bytes(name):
    """On the device that every machine has; a GPU runs the same three operations."""
    a, b = codes(name, seed=3), codes(name, seed=4)
    dtype = BY_NAME[name]
    ours = mix(a, b, (dtype, dtype), dtype, 0.3)
    theirs, sums = open_torch("cpu")(a, b, (dtype, dtype), dtype, 0.3, Scratch())
    _, wanted = mix_on_cpu(a, b, (dtype, dtype), dtype, 0.3, Scratch())
    assert sums == pytest.approx(wanted, rel=1e-4, nan_ok=True)
    assert same_bits_or_both_nan(as_torch(ours, name), as_torch(theirs, name))


@pytest.mark.parametrize("name", FLOATS)
def test_decoding_is_exact_and_encoding_turns_it_back(name):
    """Every bit pattern survives the way through float32, and means what torch says it means."""
    dtype, storage = BY_NAME[name], codes(name)
    kind = np.float64 if name == "F64" else np.float32
    numbers = decode(storage, dtype, kind, Scratch(), 0)
    np.testing.assert_array_equal(numbers, as_torch(storage, name).to(torch.float64).numpy())
    back = encode(numbers, dtype, Scratch())
    finite = ~np.isnan(numbers)
    np.testing.assert_array_equal(back[finite], storage[finite])


@given(st.lists(st.floats(width=32), min_size=1, max_size=50), st.sampled_from(["BF16", "F16", "F8_E4M3", "F8_E5M2"]))
def test_rounding_is_to_nearest_and_ties_to_even_as_in_torch(numbers, name):
    """For any float32 number, subnormal and too large ones included."""
    values = np.array(numbers, np.float32)
    if name == "F8_E4M3":  # beyond its largest number torch's versions differ: see the next test
        values = np.clip(values, -448, 448)
    with np.errstate(over="ignore"):
        ours = as_torch(encode(values, BY_NAME[name], Scratch()), name)
    assert same_bits_or_both_nan(ours, torch.from_numpy(values).to(getattr(torch, BY_NAME[name].torch)))


def test_what_is_too_large_for_float8_e4m3_becomes_nan():
    """It has no infinity; the largest number in its place would hide the overflow."""
    beyond = encode(np.array([464, 465, -1000, np.inf], np.float32), BY_NAME["F8_E4M3"], Scratch())
    np.testing.assert_array_equal(as_torch(beyond, "F8_E4M3").float(), [448, np.nan, np.nan, np.nan])


NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(NUMBERS, NUMBERS, st.floats(0, 1))
def test_float32_is_two_products_and_a_sum_each_rounded_once(a, b, alpha):
    """Against exact rational arithmetic: no fused multiply-add, no rounding of alpha in between."""

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
    """For every pair of mixable real dtypes that torch promotes; 8-bit floats only with themselves."""
    for a in FLOATS:
        for b in FLOATS:
            ours = mixed_dtype(BY_NAME[a], BY_NAME[b])
            if a != b and "F8" in a + b:
                assert ours is None
                continue
            theirs = torch.promote_types(getattr(torch, BY_NAME[a].torch), getattr(torch, BY_NAME[b].torch))
            assert f"torch.{ours}" == str(theirs)


@pytest.mark.parametrize("pair", [("I64", "F32"), ("BOOL", "BOOL"), ("C64", "F32"), ("F8_E8M0", "F8_E8M0")])
def test_what_cannot_be_mixed(pair):
    """Integers, booleans, complex with real, exponents alone."""
    assert mixed_dtype(*(BY_NAME[name] for name in pair)) is None

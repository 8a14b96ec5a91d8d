"""The compiled arithmetic against NumPy's, bit for bit."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint.tensors import BY_NAME as DTYPES
from mergekit_wise.merging.arithmetic import Scratch, combine, decode, encode
from mergekit_wise.merging.native_backend import KINDS, mix_natively, native

needs_native = pytest.mark.skipif(native is None, reason="installed without a C compiler")
COMBINATIONS = list(product(sorted(KINDS), repeat=3))


def numbers(name, rng, count):
    """Any bits: subnormal, infinite and NaN among them; the first ones are every float16 or bfloat16 there is."""
    if name == "F32":
        return rng.integers(0, 1 << 32, count, np.uint32).view(np.float32)
    return rng.permutation(np.arange(count, dtype=np.uint32).astype(np.uint16)).view(DTYPES[name].storage)


def numpys(a, b, dtypes, alpha):
    scratch = Scratch()
    x, y = decode(a, dtypes[0], np.float32, scratch, 0), decode(b, dtypes[1], np.float32, scratch, 1)
    with np.errstate(all="ignore"):
        sums = [float(np.sum(np.square(values.astype(np.float64)))) for values in (y - x, x)]
        return encode(combine(x, y, alpha, scratch), dtypes[2], scratch).copy(), sums


@needs_native
@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("alpha", [0.5, 0.3, 1.7])
def test_bits_are_numpys(names, alpha):
    """For every pattern of 16 bits, and random ones of 32; NaN may differ in what it carries, not in being NaN."""
    rng = np.random.default_rng(COMBINATIONS.index(names))
    dtypes = tuple(DTYPES[name] for name in names)
    a, b = (numbers(name, rng, 65536 + 13) for name in names[:2])
    out = np.empty(len(a), dtypes[2].storage)
    assert mix_natively(a, b, out, dtypes, alpha) is not None
    wanted, _ = numpys(a, b, dtypes, alpha)
    nan = np.isnan(decode(wanted, dtypes[2], np.float32, Scratch(), 0))
    assert np.array_equal(np.isnan(decode(out, dtypes[2], np.float32, Scratch(), 0)), nan)
    bits = f"u{out.itemsize}"
    assert np.array_equal(out.view(bits)[~nan], wanted.view(bits)[~nan])
    assert not nan.all()


@needs_native
@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("count", [0, 1, 7, 15, 16, 17, 1023, 1024, 1025, 5000])
def test_sums_and_lengths(name, count):
    """The sums of (b - a)^2 and of a^2 to float32's precision, and no element more or less than asked for."""
    rng = np.random.default_rng(count)
    dtype = DTYPES[name]
    a, b = (encode(rng.standard_normal(count).astype(np.float32), dtype, Scratch()).copy() for _ in range(2))
    out = np.full(count + 8, 7, dtype.storage)
    sums = mix_natively(a, b, out[:count], (dtype, dtype, dtype), 0.5)
    wanted, exact = numpys(a, b, (dtype, dtype, dtype), 0.5)
    assert np.array_equal(out[:count], wanted)
    assert np.all(out[count:] == np.array(7, dtype.storage))
    assert sums == pytest.approx(exact, rel=1e-5)


@needs_native
def test_lengths_that_differ_are_refused():
    """Before anything is written."""
    out = np.full(4, 7, np.float32)
    with pytest.raises(ValueError, match="as many elements"):
        native.mix(np.zeros(5, np.float32), np.zeros(4, np.float32), out, ("F32", "F32", "F32"), 0.5)
    with pytest.raises(ValueError, match="no such kind"):
        native.mix(out, out, out.copy(), ("F64", "F32", "F32"), 0.5)
    assert (out == 7).all()


WITHOUT = """
import sys
sys.modules["mergekit_wise.merging._native"] = None  # as if there were no such file
from mergekit_wise.merging.native_backend import native
from mergekit_wise.api.merge import merge
assert native is None
merge(sys.argv[1], sys.argv[2], sys.argv[3], alpha=0.3)
"""


@needs_native
def test_without_it_the_merged_file_is_the_same(pair, tmp_path):
    """As it is installed where there is no C compiler."""
    subprocess.run([sys.executable, "-c", WITHOUT, *pair, tmp_path / "without"], check=True)
    merge(*pair, tmp_path / "with", alpha=0.3)
    assert (tmp_path / "without").read_bytes() == (tmp_path / "with").read_bytes()


def test_other_dtypes_are_left_to_numpy():
    """float64 and complex numbers are not its matter."""
    a = np.zeros(4)
    assert mix_natively(a, a, a.copy(), (DTYPES["F64"],) * 3, 0.5) is None

"""The backends give the bytes of NumPy's arithmetic: compiled, and on a torch device."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import BY_NAME
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import arithmetic, open_backend
from mergekit_wise.merging.arithmetic import Scratch, decode, encode
from mergekit_wise.merging.backends import COMPILED_DTYPES, compiled, mix_on_cpu, same_bytes


def test_torch_merges_to_the_same_file(pair, tmp_path):
    """The device cpu:0 goes to torch, which gives the bytes of the CPU backend."""
    merge(*pair, tmp_path / "by torch", alpha=0.3, device="cpu:0")
    merge(*pair, tmp_path / "compiled", alpha=0.3)
    assert open_backend("cpu:0").mix is not open_backend("cpu").mix is mix_on_cpu
    assert (tmp_path / "by torch").read_bytes() == (tmp_path / "compiled").read_bytes()


def test_a_thread_mixes_blocks_of_any_size_one_after_the_other():
    """A torch backend reuses its buffers, and a smaller block keeps nothing of the larger one before it."""
    f32, scratch, mix = BY_NAME["F32"], Scratch(), open_backend("cpu:0").mix
    for count in (100, 10, 1000):
        a, b = np.arange(count, dtype=np.float32), np.full(count, 8, np.float32)
        mixed, sums = mix(a, b, (f32, f32), f32, 0.25, scratch)
        np.testing.assert_array_equal(mixed, 0.75 * a + 2)
        assert sums == pytest.approx([((b - a) ** 2).sum(dtype=float), (a**2).sum(dtype=float)])


@pytest.mark.parametrize("memory", [1, 1 << 20, 1 << 40])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_blocks_in_flight_fit_into_the_memory(device, memory):
    """The inputs and the output of all threads fit at float64's width, down to blocks of one element."""
    backend = open_backend(device, memory)
    assert backend.block >= 1
    assert backend.block == 1 or backend.threads * backend.block * 3 * 8 <= memory


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x"])
def test_an_unavailable_device_is_refused(device):
    """An unavailable device is an error that names the option and its value, whatever torch raises."""
    with pytest.raises(UsageError, match=rf"^--device {device}: "):
        open_backend(device)


needs_compiled = pytest.mark.skipif(compiled is None, reason="installed without a C compiler")
COMBINATIONS = list(product(sorted(COMPILED_DTYPES), repeat=3))


def numbers(name, rng, count):
    """Any bits, with subnormal numbers, infinities and NaN; of the 16-bit floats every pattern comes first."""
    if name == "F32":
        return rng.integers(0, 1 << 32, count, np.uint32).view(np.float32)
    return rng.permutation(np.arange(count, dtype=np.uint32).astype(np.uint16)).view(BY_NAME[name].storage)


@needs_compiled
@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
@pytest.mark.parametrize("alpha", [0.5, 0.3, 1.7])
def test_compiled_and_numpy_mix_to_the_same_bits(names, alpha):
    """All 16-bit patterns and random 32-bit ones give the same bits, apart from the payload of a NaN."""
    rng = np.random.default_rng(COMBINATIONS.index(names))
    *dtypes, out = (BY_NAME[name] for name in names)
    a, b = (numbers(name, rng, 65536 + 13) for name in names[:2])
    ours, wanted = (mix(a, b, tuple(dtypes), out, alpha, Scratch())[0] for mix in (mix_on_cpu, arithmetic.mix))
    nan = np.isnan(decode(wanted, out, np.float32, Scratch(), 0))
    assert np.array_equal(np.isnan(decode(ours, out, np.float32, Scratch(), 0)), nan)
    bits = f"u{out.itemsize}"
    assert np.array_equal(ours.view(bits)[~nan], wanted.view(bits)[~nan])
    assert not nan.all()


@needs_compiled
@pytest.mark.parametrize("name", sorted(COMPILED_DTYPES))
@pytest.mark.parametrize("count", [0, 1, 7, 15, 16, 17, 1023, 1024, 1025, 5000])
def test_compiled_code_writes_exactly_the_elements_asked_for(name, count):
    """It writes no element more or less, and its sums have float32's precision."""
    rng = np.random.default_rng(count)
    dtype = BY_NAME[name]
    a, b = (encode(rng.standard_normal(count).astype(np.float32), dtype, Scratch()).copy() for _ in range(2))
    out = np.full(count + 8, 7, dtype.storage)
    sums = compiled.mix(a, b, out[:count], (name, name, name), 0.5)
    wanted, _ = arithmetic.mix(a, b, (dtype, dtype), dtype, 0.5, Scratch())
    x, y = (decode(side, dtype, np.float64, Scratch(), 0) for side in (a, b))
    assert np.array_equal(out[:count], wanted)
    assert np.all(out[count:] == np.array(7, dtype.storage))
    assert sums == pytest.approx([((y - x) ** 2).sum(), (x**2).sum()], rel=1e-5)


@needs_compiled
def test_compiled_code_refuses_lengths_that_differ_and_other_dtypes():
    """It raises ValueError and leaves the output untouched."""
    out = np.full(4, 7, np.float32)
    with pytest.raises(ValueError, match="as many elements"):
        compiled.mix(np.zeros(5, np.float32), np.zeros(4, np.float32), out, ("F32", "F32", "F32"), 0.5)
    with pytest.raises(ValueError, match="F64"):
        compiled.mix(out, out, out.copy(), ("F64", "F32", "F32"), 0.5)
    assert (out == 7).all()


@needs_compiled
@pytest.mark.parametrize("name", ["BF16", "F16"])
@pytest.mark.parametrize("alpha", [0.5, 0.3, 1.7])
def test_the_sums_of_16_bit_numbers_are_those_of_lanes_in_float32(name, alpha):
    """Element i of a block of 1024 is added to lane i modulo 16, and the lanes in float64, on every processor."""
    rng, dtype = np.random.default_rng(0), BY_NAME[name]
    x, y = (rng.standard_normal(3 * 1024).astype(np.float32) for _ in range(2))
    a, b = (encode(side, dtype, Scratch()).copy() for side in (x, y))
    sums = compiled.mix(a, b, np.empty_like(a), (name, name, name), alpha)
    x, y = (decode(side, dtype, np.float32, Scratch(), 0).copy() for side in (a, b))
    for found, terms in zip(sums, ((y - x) ** 2, x**2), strict=True):
        wanted = 0.0
        for block in terms.reshape(3, 64, 16):
            lanes = np.zeros(16, np.float32)
            for row in block:
                lanes += row
            of_block = 0.0
            for lane in lanes:
                of_block += float(lane)
            wanted += of_block
        assert found == wanted


@needs_compiled
def test_bytes_are_compared_up_to_the_last():
    """NaN equals NaN of the same bits, zeros of different signs differ, and so do last bytes that differ."""
    a = np.array([np.nan, 0.0, 1.0], np.float32)
    for place, value, equal in ((0, np.nan, True), (1, -0.0, False), (2, np.nextafter(np.float32(1), 2), False)):
        b = a.copy()
        b[place] = value
        assert same_bytes(a, b) == (a.tobytes() == b.tobytes()) == equal
    assert not same_bytes(a, a[:2])
    assert same_bytes(a[:0], a[:0])


WITHOUT = """
import sys
sys.modules["mergekit_wise.merging._native"] = None  # as if there were no such file
from mergekit_wise.merging.backends import compiled
from mergekit_wise.api.merge import merge
assert compiled is None
merge(sys.argv[1], sys.argv[2], sys.argv[3], alpha=0.3)
"""


@needs_compiled
def test_without_compiled_code_the_merged_file_is_the_same(pair, tmp_path):
    """An installation without a C compiler has no compiled module, and merges to the same bytes."""
    subprocess.run([sys.executable, "-c", WITHOUT, *pair, tmp_path / "without"], check=True)
    merge(*pair, tmp_path / "with", alpha=0.3)
    assert (tmp_path / "without").read_bytes() == (tmp_path / "with").read_bytes()


@pytest.mark.parametrize("name", ["F64", "C64", "F8_E4M3"])
def test_dtypes_without_compiled_code_are_mixed_by_numpy(name):
    """The result of the CPU backend is that of the NumPy arithmetic."""
    dtype = BY_NAME[name]
    a, b = (np.arange(start, start + 64, dtype=np.uint8).view(dtype.storage) for start in (0, 17))
    ours, wanted = (mix(a, b, (dtype, dtype), dtype, 0.3, Scratch())[0] for mix in (mix_on_cpu, arithmetic.mix))
    assert ours.tobytes() == wanted.tobytes()

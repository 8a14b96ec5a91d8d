"""Where the arithmetic runs."""

import numpy as np
import pytest

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import BY_NAME
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.backends import mix_on_cpu, open_backend


def test_torch_merges_to_the_same_file(pair, tmp_path):
    """On the device that every machine has; ``cpu`` by itself is left to the compiled arithmetic."""
    merge(*pair, tmp_path / "by torch", alpha=0.3, device="cpu:0")
    merge(*pair, tmp_path / "compiled", alpha=0.3)
    assert open_backend("cpu:0").mix is not open_backend("cpu").mix is mix_on_cpu
    assert (tmp_path / "by torch").read_bytes() == (tmp_path / "compiled").read_bytes()


def test_a_thread_mixes_blocks_of_any_size_one_after_the_other():
    """In buffers that it uses again: a smaller block keeps nothing of the larger one before it."""
    f32, scratch, mix = BY_NAME["F32"], Scratch(), open_backend("cpu:0").mix
    for count in (100, 10, 1000):
        a, b = np.arange(count, dtype=np.float32), np.full(count, 8, np.float32)
        mixed, sums = mix(a, b, (f32, f32), f32, 0.25, scratch)
        np.testing.assert_array_equal(mixed, 0.75 * a + 2)
        assert sums == pytest.approx([((b - a) ** 2).sum(dtype=float), (a**2).sum(dtype=float)])


@pytest.mark.parametrize("memory", [1, 1 << 20, 1 << 40])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_blocks_in_flight_fit_into_the_memory(device, memory):
    """At least one element each; both inputs and the output, at most in float64."""
    engine = open_backend(device, memory)
    assert engine.block >= 1
    assert engine.block == 1 or engine.threads * engine.block * 3 * 8 <= memory


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(device):
    """In a sentence, whatever torch raises."""
    with pytest.raises(UsageError, match=rf"--device {device}: torch cannot use it \(.+\). Use --device cpu."):
        open_backend(device)

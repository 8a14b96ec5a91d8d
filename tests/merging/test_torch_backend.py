"""What merges on a torch device are, without one: every device's rules as they can be checked on a CPU."""

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import BY_NAME
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import open_backend, torch_backend
from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.backends import mix_on_cpu
from mergekit_wise.merging.torch_backend import exact_dtypes, fetch, mix_into, mixture, open_device, send, torch_dtype

SIXTEEN = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def bits(name, rng):
    """All bit patterns of a 16-bit float; of others random ones with every special value."""
    if name in ("BF16", "F16"):
        return rng.permutation(SIXTEEN).view(BY_NAME[name].storage)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 3e38, 1.0], np.float32)
    pairs = np.stack(np.meshgrid(special, special)).reshape(-1)
    found = np.concatenate([pairs, rng.integers(0, 1 << 32, 4096, np.uint32).view(np.float32)])
    if name == "F64":
        with np.errstate(invalid="ignore"):  # signalling NaN
            return found.astype(np.float64)
    return rng.permutation(found.view(np.complex64)) if name == "C64" else rng.permutation(found)


@pytest.mark.parametrize(
    "names",
    [
        *((a, a, out) for a in ("BF16", "F16", "F32") for out in ("BF16", "F16", "F32")),
        *(("BF16", "F16", "F32"), ("C64",) * 3, ("F64",) * 3, ("F64", "F64", "BF16")),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("alpha", [0.5, 0.3, 1.7])
def test_a_torch_device_gives_the_bytes_of_the_cpu_for_every_bit_pattern(names, alpha):
    """NaN with all its bits, infinities, signed zeros of complex numbers and subnormal numbers included."""
    rng = np.random.default_rng(0)
    *dtypes, out = (BY_NAME[name] for name in names)
    a, b = (bits(name, rng) for name in names[:2])
    a, b = a[: len(b)], b[: len(a)]
    for one, other in ((a, b), (a, a), (np.zeros_like(a), b)):
        wanted = mix_on_cpu(one, other, tuple(dtypes), out, alpha, Scratch())[0].tobytes()
        assert open_backend("cpu:0").mix(one, other, tuple(dtypes), out, alpha, Scratch())[0].tobytes() == wanted


@pytest.mark.parametrize("name", ["BF16", "F16", "F32", "C64", "F64"])
@pytest.mark.parametrize("alpha", [0.5, 0.3, 1.7])
def test_the_device_itself_mixes_finite_numbers_to_the_bytes_of_the_cpu(name, alpha):
    """Nothing of a block of finite numbers is left to the CPU, and many tensors at once are the same."""
    rng, dtype = np.random.default_rng(1), BY_NAME[name]
    every = torch.from_numpy(bits(name, rng).view(np.uint8).copy()).view(torch_dtype(dtype))
    x = every[(torch.isfinite(every)) & (every.abs() < 1e18)]
    y = x[torch.from_numpy(rng.permutation(len(x)))]
    stored = [each.contiguous().view(torch.uint8).numpy().view(dtype.storage) for each in (x, y)]
    wanted = mix_on_cpu(*stored, (dtype, dtype), dtype, alpha, Scratch())[0].tobytes()
    assert mixture(x, y, x.dtype, alpha).view(torch.uint8).numpy().tobytes() == wanted
    if name not in ("C64", "F64"):
        targets = [torch.full((len(x),), torch.nan), torch.full((9,), torch.nan)]
        mix_into(targets, [x, x[:9]], [y, y[:9]], x.dtype, alpha)
        assert torch.equal(targets[0], mixture(x, y, x.dtype, alpha).float())
        assert torch.equal(targets[1], targets[0][:9])


def test_only_devices_that_are_known_to_have_float64_are_given_it():
    """Apple's GPUs have none, so that such tensors are mixed on the CPU."""
    assert "F64" in exact_dtypes(torch.device("cpu"))
    assert "F64" in exact_dtypes(torch.device("cuda:1"))
    for name in ("mps", "xpu", "meta"):
        assert exact_dtypes(torch.device(name)) == exact_dtypes(torch.device("cpu")) - {"F64"}


class Recorded:
    """Stands for a tensor on the CPU, and notes how it is copied."""

    device = torch.device("cpu")

    def __init__(self):
        self.calls = []

    def pin_memory(self):
        self.calls.append("pin_memory")
        return self

    def to(self, device, non_blocking=False):
        self.calls.append((device.type, non_blocking))
        return self


def test_a_copy_that_runs_by_itself_comes_from_page_locked_memory_and_goes_to_cuda_alone():
    """From other memory, or to other devices, it could be read after the memory has been used again."""
    assert send(Recorded(), torch.device("cuda")).calls == ["pin_memory", ("cuda", True)]
    assert send(Recorded(), torch.device("mps")).calls == [("mps", False)]
    values = torch.arange(3)
    assert fetch(send(values, torch.device("cpu"))).wait() is values


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no code for this GPU"),
        (RuntimeError("Found no NVIDIA driver on your system. Please check"), "driver is missing or too old"),
        (RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."), "Install or update it"),
        (AssertionError("Torch not compiled with CUDA enabled"), "built without support for it"),
        (NotImplementedError("Could not run 'aten::empty' with arguments from the 'MPS' backend."), "built without"),
        (RuntimeError("CUDA error: invalid device ordinal\nmore"), "no such GPU. Name one that 'wise --devices' lists"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"), "its memory is full"),
        (RuntimeError("CUDA error: unspecified launch failure\nfor debugging"), "unspecified launch failure"),
    ],
)
def test_a_device_that_cannot_compute_is_refused_with_what_helps(error, said):
    """A kernel is run, because a card for which torch has none still gives memory."""

    def compute(device):
        raise error

    with pytest.raises(UsageError, match=r"^--device cpu:0: .*, or use --device cpu\.$") as raised:
        open_device("cpu:0", compute)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert open_device("cpu:0") == torch.device("cpu:0")
    with pytest.raises(UsageError, match="--device meta"):
        open_device("meta")


def test_a_merge_for_which_the_memory_of_a_device_does_not_suffice_names_the_way_out(monkeypatch):
    """Other errors of the device are raised as they are."""
    f32 = BY_NAME["F32"]
    for error, raised in ((torch.OutOfMemoryError("x"), UsageError), (RuntimeError("shapes"), RuntimeError)):

        def full(*_, error=error):
            raise error

        monkeypatch.setattr(torch_backend, "mixture", full)
        with pytest.raises(raised, match="Use --device cpu, which gives the same bytes|shapes"):
            open_backend("cpu:0").mix(np.ones(3, "f"), np.ones(3, "f"), (f32, f32), f32, 0.5, Scratch())

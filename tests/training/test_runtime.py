"""How a step is computed: which modes are on while it is, on a device that this machine need not have."""

import pytest
import torch
from torch import nn

from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation import Ranks
from mergekit_wise.training.runtime import Runtime, deterministic, why_not_compiled

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def modes():
    """What torch is asked for: deterministic forms, warnings only, cuDNN's two flags, and memory that is filled."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("strict", [True, False])
def test_cuda_is_deterministic_while_a_step_is_computed(strict):
    """Torch makes attention's backward pass deterministic if it does not only warn; all modes are then put back."""
    before = modes()
    with deterministic(CUDA, strict):
        assert modes() == (True, not strict, True, False, False)
    assert modes() == before
    with pytest.raises(KeyError), deterministic(CUDA):
        raise KeyError
    assert modes() == before
    with deterministic(CPU):
        assert modes() == before


def test_fp32_is_float32_in_both_directions():
    """While a step is computed in fp32, neither products of matrices nor convolutions are rounded to TF32."""
    before = tf32()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with Runtime(CUDA, "fp32").computing(), Runtime(CUDA, "fp32").autocast():
            assert tf32() == (False, False)
            assert modes()[:2] == (True, False)
        with Runtime(CUDA, "bf16").computing():
            assert not torch.is_autocast_enabled("cuda")
        assert tf32() == (True, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...", "cumsum_cuda_kernel"),
        (
            "This operation is not deterministic because it uses CuBLAS ... CUBLAS_WORKSPACE_CONFIG=:4096:8",
            "cuBLAS",
        ),
    ],
)
def test_an_operation_without_a_deterministic_form_is_named_once(message, name):
    """The step is tried again without the strict mode, and a note says what that means; other errors are raised."""
    notes = []
    runtime = Runtime(CUDA, note=notes.append)
    assert not runtime.tolerates(RuntimeError("shapes do not match"))
    assert runtime.strict
    assert runtime.tolerates(RuntimeError(message))
    assert not runtime.tolerates(RuntimeError(message))
    assert len(notes) == 1
    assert notes[0].startswith(f"{name} has no deterministic form on cuda")
    with runtime.computing():
        assert modes()[:2] == (True, True)


@pytest.mark.parametrize(
    ("device", "calls"),
    [("cuda", ["pinned", ("cuda", True)]), ("mps", [("mps", False)]), ("cpu", [("cpu", False)])],
)
def test_only_page_locked_memory_is_copied_without_waiting(device, calls):
    """Other memory could be filled anew while it is read; only CUDA has page-locked memory here."""
    values = Recorded()
    Runtime(torch.device(device)).send(values)
    assert values.calls == calls


def test_a_batch_that_does_not_fit_beside_the_step_stays_on_the_cpu():
    """It is then sent in micro-batches; any other error is not kept back."""

    def fail(values):
        raise errors.pop()

    errors = [RuntimeError("device-side assert"), torch.OutOfMemoryError("CUDA out of memory")]
    runtime, values = Runtime(CPU), torch.zeros(2)
    runtime._sender = fail
    assert runtime.ahead(values) is values
    with pytest.raises(RuntimeError, match="assert"):
        runtime.ahead(values)


class Recorded:
    """Values that record how they are copied."""

    device = CPU

    def __init__(self):
        self.calls = []

    def pin_memory(self):
        self.calls.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.calls.append((device.type, non_blocking))
        return self


def test_a_compiler_that_fails_says_why():
    """The first line of the error is kept, and an error without text has its name."""

    def fails(error):
        def compile_it(module):
            raise error

        return compile_it

    assert why_not_compiled(CPU, fails(RuntimeError("No C++ compiler.\nLong trace"))) == "No C++ compiler"
    assert why_not_compiled(CPU, fails(NotImplementedError())) == "NotImplementedError"
    assert why_not_compiled(CPU, lambda module: module) == ""


class Scarce(nn.Module):
    """Runs out of memory beyond `room` images; one of its weights is not used."""

    def __init__(self, room):
        super().__init__()
        self.used, self.unused, self.room, self.tried = nn.Linear(3, 2), nn.Linear(3, 2), room, []

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB).")
        return self.used(images)


@pytest.mark.parametrize(("device", "tried"), [("meta", [9, 5, 3]), ("cpu", [1])])
def test_several_processes_try_what_fits_before_they_wait_for_each_other(device, tried):
    """A device halves its micro-batch until a whole one fits; the CPU tries one image. Unused weights do not learn."""
    notes, module = [], Scarce(4).to(device)
    runtime = Runtime(torch.device(device), ranks=Ranks(0, 2, CPU), micro=9, note=notes.append)
    runtime._try_passes(module, (torch.zeros(1, 3),))
    assert module.tried == tried
    assert notes == [f"out of memory: micro-batch size reduced to {rows}" for rows in tried[1:]]
    learns = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert learns == {"used.weight", "used.bias"}
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_device_without_memory_for_one_image_is_an_error():
    """The smallest micro-batch is tried, and a sentence says what needs less."""
    module = Scarce(0).to("meta")
    runtime = Runtime(torch.device("meta"), ranks=Ranks(0, 2, CPU), micro=3)
    with pytest.raises(ModelError, match="--grad-checkpointing"):
        runtime._try_passes(module, (torch.zeros(1, 3),))
    assert module.tried == [3, 2, 1]


def test_memory_for_no_copy_of_the_gradients_is_an_error(monkeypatch):
    """Processes keep the gradients that they exchange; where these do not fit, a sentence says what needs less."""

    def fails(module, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("mergekit_wise.training.runtime.DistributedDataParallel", fails)
    runtime = Runtime(CPU, ranks=Ranks(0, 2, "cpu"))
    with pytest.raises(ModelError, match="gradients that processes exchange.*--anchor.*--freeze"):
        runtime.prepared(nn.Linear(3, 2), torch.zeros(1, 3))


def test_the_compiled_module_is_the_one_that_is_trained():
    """A runtime with a compiler gives the objective what the compiler made, and computes within its limits."""
    runtime, before = Runtime(CPU, compiler=lambda module: nn.Sequential(module)), torch._dynamo.config.recompile_limit
    assert isinstance(runtime.prepared(nn.Linear(2, 2)), nn.Sequential)
    with runtime.computing():
        assert torch._dynamo.config.recompile_limit == 64
    assert torch._dynamo.config.recompile_limit == before

"""Device, precision and processes: where and how gradients are computed and added up. Knows no loss."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation.distributed import ALONE, Ranks
from mergekit_wise.evaluation.forward import DTYPES, Precision, is_memory_error, whole_float32, within_memory
from mergekit_wise.merging.torch_backend import Sender, release, send

_NO_DETERMINISTIC_FORM = ("does not have a deterministic implementation", "operation is not deterministic")
"""What torch's errors say of an operation in the deterministic mode: the first of most, the second of cuBLAS."""

AHEAD = 1 << 30
"""The largest batch, in bytes, that is copied to the device as a whole, during the step before it."""

_SHAPES = 64
"""Compiled forms of a module that torch keeps; beyond its default of 8, it would compute uncompiled, in silence."""


@dataclass(slots=True)
class Runtime:
    """How a step is computed.

    Attributes:
        device: the device of the module.
        precision: of the operations that autocast runs in less than float32.
        ranks: the processes that share a batch.
        micro: micro-batch size, the images per forward pass of this process.
        compiler: compiles the trained module (``torch.compile``); None leaves it as it is.
        note: called with a message if results may differ from run to run, and if the micro-batch is halved.
        strict: whether an operation without a deterministic form is an error; see `deterministic`.
        scaler: scales the loss in float16, so that small gradients do not become zero.
    """

    device: torch.device
    precision: Precision = "fp32"
    ranks: Ranks = ALONE
    micro: int = 1 << 30
    compiler: Callable[[nn.Module], nn.Module] | None = None
    note: Callable[[str], object] = str
    strict: bool = True
    scaler: torch.amp.GradScaler = field(init=False)
    _sender: Sender | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Make the scaler for the precision."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def prepared(self, module: nn.Module, *example: Tensor) -> nn.Module:
        """Return the module, compiled if asked for, and wrapped to average the gradients of several processes.

        ``example`` is an input of the module. Of several processes, weights that the outputs do not depend on (some
        towers have such weights) no longer require a gradient, because the processes would wait for it forever.
        """
        if self.ranks.size > 1:
            self._try_passes(module, example)
        compiled = module if self.compiler is None else self.compiler(module)
        if self.ranks.size == 1:
            return compiled
        what = "not enough memory for the gradients that processes exchange, which take as much as the trained weights"
        advice = "Leave --anchor and --ema out, train fewer tensors (--freeze), or use --device cpu."
        with within_memory(f"{self.device}: {what}. {advice}"):
            return DistributedDataParallel(compiled)

    def _try_passes(self, module: nn.Module, example: tuple[Tensor, ...]) -> None:
        """Pass an example through the module in both directions; find out what needs no gradient, and what fits.

        A process whose memory runs out later would let the others wait for its gradients. So a device other than the
        CPU tries a whole micro-batch, with AdamW's moments beside it, and halves it until it fits.
        """
        while True:
            try:
                self._pass(module, example)
                break
            except RuntimeError as error:
                out_of_memory = is_memory_error(error)
                if out_of_memory and self.micro == 1:
                    raise ModelError(
                        f"{self.device}: not enough memory to train on a single image at a time. Give "
                        "--grad-checkpointing, or --device cpu."
                    ) from error
                if not out_of_memory and not self.tolerates(error):
                    raise
            if out_of_memory:  # not in the handler, whose traceback would keep the tensors alive that filled the memory
                self.halve()
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None

    def _pass(self, module: nn.Module, example: tuple[Tensor, ...]) -> None:
        rows = 1 if self.device.type == "cpu" else self.micro
        with self.computing():
            _moments = [torch.empty_like(each) for each in (*module.parameters(), *module.parameters())]
            with self.autocast():
                outputs = module(*(self.send(each).expand(rows, *each.shape[1:]) for each in example))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            torch.autograd.backward([output.float().sum() for output in outputs])

    def halve(self) -> None:
        """Halve the micro-batch, because memory ran out."""
        self.micro = (self.micro + 1) // 2
        self.note(f"out of memory: micro-batch size reduced to {self.micro}")
        release(self.device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """While the block runs, passes in both directions give the same numbers every time, in float32 without TF32."""
        with ExitStack() as contexts:
            contexts.enter_context(deterministic(self.device, self.strict))
            contexts.enter_context(whole_float32())
            if self.compiler is not None:
                contexts.enter_context(torch._dynamo.config.patch(recompile_limit=_SHAPES))
            yield

    def tolerates(self, error: RuntimeError) -> bool:
        """Whether to try again, because an operation has no deterministic form: from now on, it is computed anyway."""
        text = str(error)
        if not self.strict or not any(sign in text for sign in _NO_DETERMINISTIC_FORM):
            return False
        self.strict = False
        operation = "cuBLAS" if "CUBLAS_WORKSPACE_CONFIG" in text else text.split()[0]
        self.note(
            f"{operation} has no deterministic form on {self.device}: runs of the same command, and resumed ones, may "
            "give slightly different weights"
        )
        return True

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which operations run in the lower precision where that is safe."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def send(self, values: Tensor) -> Tensor:
        """Copy values to the device; see `torch_backend.send`."""
        return send(values, self.device)

    def ahead(self, values: Tensor) -> Tensor:
        """Copy values to the device while CUDA still computes, unless they take more than `AHEAD` bytes or its memory.

        Those that stay here are sent in micro-batches.
        """
        if values.nbytes > AHEAD:
            return values
        if self._sender is None:
            self._sender = Sender(self.device)
        try:
            return self._sender(values)
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
        return values

    def backward(self, loss: Tensor) -> None:
        """Add up the gradients of this process's part of the loss, so that the average over processes is their sum."""
        loss = self.scaler.scale(loss)
        (loss * self.ranks.size if self.ranks.size > 1 else loss).backward()  # type: ignore[no-untyped-call]

    def rows(self, count: int) -> list[slice]:
        """Return the micro-batches of `count` images."""
        return [slice(start, min(start + self.micro, count)) for start in range(0, count, self.micro)]


def accumulating(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Return the context of a micro-batch's passes: processes exchange gradients only after the last micro-batch."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


@contextmanager
def deterministic(device: torch.device, strict: bool = True) -> Iterator[None]:
    """While the block runs, CUDA computes the same numbers every time; a CPU always does.

    An operation without a deterministic form raises RuntimeError if `strict`. If not, it is computed anyway, and so is
    attention, whose backward pass torch makes deterministic in the strict mode alone.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    memory: Any = torch.utils.deterministic  # its types lack the flag
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    # Memory is never read before it is written here, and filling it takes time.
    cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = True, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = flags
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def torch_compile(module: nn.Module) -> nn.Module:
    """Compile a module, each shape of its input by itself.

    Were several shapes compiled into one, the numbers would depend on the order in which a run met them.
    """
    compiled = torch.compile(module, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


def why_not_compiled(device: torch.device, compiler: Callable[[nn.Module], nn.Module] = torch_compile) -> str:
    """Return why torch cannot compile for a device, such as a missing C++ compiler; empty if it can."""
    try:
        compiler(nn.GELU())(torch.ones(8, device=device))
    except Exception as error:  # of several libraries and of the compiler, of any kind
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return ""


def set_training(module: nn.Module) -> None:
    """Set training mode, except for batch norms, which keep their pre-trained statistics.

    Statistics of the new images would not fit the zero-shot weights, nor any merged ones.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()

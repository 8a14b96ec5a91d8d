"""Device, precision and processes: where and how gradients are computed and added up. Knows no loss."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mergekit_wise.evaluation.distributed import ALONE, Ranks
from mergekit_wise.evaluation.forward import DTYPES, Precision


@dataclass(slots=True)
class Runtime:
    """How a step is computed.

    Attributes:
        device: the device of the module.
        precision: of the operations that autocast runs in less than float32.
        ranks: the processes that share a batch.
        micro: micro-batch size, the images per forward pass of this process.
        scaler: scales the loss in float16, so that small gradients do not become zero.
    """

    device: torch.device
    precision: Precision = "fp32"
    ranks: Ranks = ALONE
    micro: int = 1 << 30
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        """Make the scaler for the precision."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def distributed(self, module: nn.Module, *example: Tensor) -> nn.Module:
        """Return the module, wrapped to average the gradients of all processes if there are several.

        ``example`` is an input of the module. Weights that the outputs do not depend on (some towers have such weights)
        no longer require a gradient, because the processes would wait for it forever.
        """
        if self.ranks.size == 1:
            return module
        outputs = module(*map(self.send, example))
        torch.autograd.backward([output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))])
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        return DistributedDataParallel(module)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which operations run in the lower precision where that is safe."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def send(self, values: Tensor) -> Tensor:
        """Copy values to the device."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

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
def deterministic(device: torch.device) -> Iterator[None]:
    """While the block runs, a GPU computes the same numbers every time, as far as torch can; a CPU always does."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def set_training(module: nn.Module) -> None:
    """Set training mode, except for batch norms, which keep their pre-trained statistics.

    Statistics of the new images would not fit the zero-shot weights, nor any merged ones.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()

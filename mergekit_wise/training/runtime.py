"""Where and in which precision gradients are computed, and how several processes add them up. Knows no loss."""

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
        device: where the module is.
        precision: of what autocast lets be computed in less than float32.
        ranks: the processes that share a batch.
        micro: images that are computed at once, of those that this process has of a batch.
        scaler: of gradients, without which those in float16 would vanish.
    """

    device: torch.device
    precision: Precision = "fp32"
    ranks: Ranks = ALONE
    micro: int = 1 << 30
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        """The scaler follows from the precision."""
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def shared(self, module: nn.Module, *example: Tensor) -> nn.Module:
        """The module itself, or one whose backward pass averages the gradients of all processes.

        ``example`` is what the module is called with; weights that its outputs do not depend on, as some towers have,
        need no gradient from here on: nobody may wait for it.
        """
        if self.ranks.size == 1:
            return module
        found = module(*map(self.send, example))
        torch.autograd.backward([output.sum() for output in (found if isinstance(found, tuple) else (found,))])
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        return DistributedDataParallel(module)

    def autocast(self) -> AbstractContextManager[Any]:
        """Within it, what may be computed in less precision is."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def send(self, values: Tensor) -> Tensor:
        """Values on the device."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def backward(self, loss: Tensor) -> None:
        """Add up gradients of this process's part of the loss; what averages them gets the sum."""
        loss = self.scaler.scale(loss)
        (loss * self.ranks.size if self.ranks.size > 1 else loss).backward()  # type: ignore[no-untyped-call]

    def rows(self, count: int) -> list[slice]:
        """How a process's part of a batch is cut."""
        return [slice(start, min(start + self.micro, count)) for start in range(0, count, self.micro)]


def accumulating(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Forward and backward within it: processes exchange gradients only after the last part of a batch."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """While the block runs, a GPU computes the same numbers every time, as far as torch knows how.

    A CPU does so anyway.
    """
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
    """Training mode, but for batch norms: these keep the statistics that they were pre-trained with.

    Statistics of the new images would not fit the old weights, nor any mixture of old and new ones.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()

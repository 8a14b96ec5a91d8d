"""AdamW as the paper uses it: cosine schedule with warm-up, gradient norm clipped. Knows no loss and no model."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mergekit_wise.training.schedule import cosine_with_warmup


@dataclass(frozen=True, slots=True)
class Optimization:
    """How a run is optimised: ``warmup`` is in steps, ``clip`` the largest norm of all gradients together."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0


class Stepper:
    """Takes the parameters a step further each time it is given a loss; ``taken`` of ``total`` steps are done."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: Optimization, total: int) -> None:
        self.total = total
        self.taken = 0
        self._settings = settings
        self._parameters = [p for p in parameters if p.requires_grad]
        groups = _decay_groups(self._parameters, settings.weight_decay)
        self._adamw = torch.optim.AdamW(groups, betas=settings.betas, fused=True)

    def step(self, loss: Tensor) -> None:
        """Move the parameters against the gradient of ``loss`` (a scalar)."""
        settings = self._settings
        for group in self._adamw.param_groups:
            group["lr"] = settings.learning_rate * cosine_with_warmup(self.taken, self.total, settings.warmup)
        self._adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, settings.clip)
        self._adamw.step()
        self.taken += 1


def _decay_groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    """Matrices and kernels decay; gains, biases and the logit scale do not (as in CLIP's own training)."""
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]

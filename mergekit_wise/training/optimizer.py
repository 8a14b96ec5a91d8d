"""AdamW as the paper uses it: cosine schedule with warm-up, gradient norm clipped. Knows no loss and no model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.schedule import cosine_with_warmup

RATE, LINEAR_RATE, WARMUP = 3e-5, 1e-3, 500
"""The default peak learning rates, of all weights and of the head alone, and the steps of warm-up."""

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of each parameter, in torch's words."""


@dataclass(frozen=True, slots=True)
class Optimization:
    """How a run is optimised.

    Attributes:
        epochs: passes over the images; `batch_size` of them make a step.
        learning_rate: the highest of the schedule.
        warmup: steps until it is reached.
        weight_decay: of matrices and kernels.
        betas: AdamW's.
        clip: the largest norm of all gradients together.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0


def optimization(options: FinetuneOptions, batch_size: int, total: int) -> Optimization:
    """How `total` steps of `batch_size` images are taken."""
    warmup = options.warmup if options.warmup is not None else WARMUP if total > WARMUP else total // 10
    lr = options.lr if options.lr is not None else LINEAR_RATE if options.linear else RATE
    return Optimization(options.epochs, batch_size, lr, warmup, options.weight_decay, clip=options.clip)


class OptimizerStep:
    """Takes parameters a step further each time; ``taken`` of ``total`` steps are done.

    Args:
        parameters: by name; those that require no gradient are left alone, not even decayed.
        settings: how.
        total: steps of the whole run.
        factors: what the learning rate of a parameter is multiplied with, by name; 1 where nothing is said.
        scaler: of gradients in float16; it does nothing unless it is enabled.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        settings: Optimization,
        total: int,
        factors: Mapping[str, float] | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.total = total
        self.taken = 0
        self.scaler = scaler or torch.amp.GradScaler(enabled=False)
        self._settings = settings
        self._parameters = {name: p for name, p in parameters if p.requires_grad}
        groups = _groups(self._parameters, settings.weight_decay, factors or {})
        self._adamw = torch.optim.AdamW(groups, betas=settings.betas, fused=True)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, before any factor."""
        return self._settings.learning_rate * cosine_with_warmup(self.taken, self.total, self._settings.warmup)

    def clear(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad()

    def step(self, loss: Tensor) -> None:
        """Move the parameters against the gradient of ``loss`` (a scalar)."""
        self.clear()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.norm()
        self.apply()

    def norm(self) -> Tensor:
        """Clip the gradients that are there; returns their norm before that, a scalar."""
        self.scaler.unscale_(self._adamw)
        return nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip)

    def apply(self) -> None:
        """Move the parameters against the clipped gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = self.rate * group["factor"]
        self.scaler.step(self._adamw)
        self.scaler.update()
        self.taken += 1

    def moments(self) -> dict[str, Tensor]:
        """What AdamW remembers, by ``MOMENT.PARAMETER``; with `taken`, all that the next step depends on."""
        return {
            f"{moment}.{name}": self._adamw.state[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in MOMENTS
            if parameter in self._adamw.state
        }

    def restore(self, taken: int, moments: Mapping[str, Tensor]) -> None:
        """Go on from where `moments` were given after `taken` steps."""
        self.taken = taken
        for name, parameter in self._parameters.items():
            if f"step.{name}" in moments:
                self._adamw.state[parameter] = {
                    moment: moments[f"{moment}.{name}"].to(parameter.device, torch.float32) for moment in MOMENTS
                }


def _groups(
    parameters: Mapping[str, nn.Parameter], decay: float, factors: Mapping[str, float]
) -> list[dict[str, object]]:
    """Matrices and kernels decay; gains, biases and the logit scale do not (as in CLIP's own training)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for matrices in (True, False):
        for name, parameter in parameters.items():
            if (parameter.ndim >= 2) == matrices:
                key = (decay if matrices else 0.0, factors.get(name, 1.0))
                groups.setdefault(key, []).append(parameter)
    return [{"params": members, "weight_decay": decay, "factor": factor} for (decay, factor), members in groups.items()]

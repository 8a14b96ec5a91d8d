"""AdamW as the paper uses it (cosine schedule with warm-up, clipped gradient norm), and averages of the weights.

Knows no loss and no model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mergekit_wise.errors import UsageError
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.learning_rate import cosine_with_warmup
from mergekit_wise.wording import plural

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state of each parameter, by torch's keys."""

WARMUP = 500
"""The default warm-up steps of a long run."""


@dataclass(frozen=True, slots=True)
class Optimization:
    """The hyperparameters of a run.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step.
        learning_rate: the peak of the schedule.
        warmup: steps until the peak is reached.
        weight_decay: AdamW's.
        betas: AdamW's.
        clip: upper bound of the norm of all gradients together; 0 for none.
        decay: what decays: "all" parameters, as in the authors' code (mlfoundations/wise-ft, src/models/finetune.py),
            or "matrices" (and kernels) but not gains, biases and the logit scale, as CLIP was pre-trained.
        anchor: the decay of all trained parameters towards their values at the start; 0 for none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: int
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    decay: str = "all"
    anchor: float = 0.0

    @property
    def decayed(self) -> str:
        """What decays, and how much, for people."""
        if not self.weight_decay:
            return "no weight decay"
        what = "all trained parameters" if self.decay == "all" else "matrices and kernels, not on gains and biases"
        return f"weight decay {self.weight_decay:g} on {what}"

    @property
    def anchored(self) -> str:
        """How strong the anchor is, for people; empty if there is none."""
        return f"anchor {self.anchor:g}: all trained parameters decay towards their start" if self.anchor else ""


def optimization(options: FinetuneOptions, batch_size: int, total: int) -> Optimization:
    """Return the hyperparameters of `total` steps of `batch_size` images, with the defaults filled in.

    Raises UsageError if the learning rate would not reach its peak before the last step.
    """
    if options.warmup is not None and options.warmup >= total:
        raise UsageError(
            f"--warmup {options.warmup:,}: the run has {plural(total, 'step')}, so the learning rate would never pass "
            "its peak. Give fewer warm-up steps or more --epochs; the default is 10 % of a short run."
        )
    warmup = options.warmup if options.warmup is not None else WARMUP if total > WARMUP else total // 10
    return Optimization(
        options.epochs,
        batch_size,
        options.peak,
        warmup,
        options.weight_decay,
        clip=options.clip,
        decay=options.decay,
        anchor=options.anchor,
    )


class OptimizerStep:
    """Updates parameters step by step; ``taken`` of ``total`` steps are done.

    With an anchor a, each step begins with ``w -= rate * a * (w - w_0)``, where w_0 is what the parameters hold now and
    `rate` has their factor: the gradient of L2-SP, ``a / 2 * |w - w_0|^2`` (Li et al., ICML 2018, equation 2), applied
    apart from AdamW, as Loshchilov and Hutter do for weight decay (ICLR 2019, algorithm 2). In the loss, AdamW would
    divide it by the size of each weight's gradients, and clipping would shrink both together.

    Args:
        parameters: by name; those that require no gradient are not changed, not even decayed. Create this object
            before a saved state is loaded into them: the anchor is a copy of their values.
        settings: the hyperparameters.
        total: steps of the whole run.
        factors: factors on the learning rates of parameters, by name; 1 by default.
        scaler: scales gradients in float16; disabled by default.
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
        groups = _groups(self._parameters, settings, factors or {})
        self._start = {p: p.detach().clone() for p in self._parameters.values()} if settings.anchor else {}
        self._norm = torch.zeros(())
        self._adamw = torch.optim.AdamW(groups, betas=settings.betas, fused=True)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, before any factor."""
        return self._settings.learning_rate * cosine_with_warmup(self.taken, self.total, self._settings.warmup)

    def clear(self) -> None:
        """Clear the gradients."""
        self._adamw.zero_grad()

    def step(self, loss: Tensor) -> None:
        """Compute the gradient of ``loss`` (a scalar), clip it and update the parameters."""
        self.clear()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.norm()
        self.apply()

    def norm(self) -> Tensor:
        """Clip the gradients unless ``clip`` is 0; return their norm before clipping, a scalar tensor."""
        self.scaler.unscale_(self._adamw)
        if self._settings.clip:
            self._norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip)
        else:
            self._norm = nn.utils.get_total_norm([p.grad for p in self._parameters.values() if p.grad is not None])
        return self._norm

    def apply(self) -> None:
        """Update the parameters with the clipped gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = self.rate * group["factor"]
        if self._start and not (self.scaler.is_enabled() and not self._norm.isfinite()):
            self._pull()  # not if the scaler skips this step, whose gradients overflowed in float16
        self.scaler.step(self._adamw)
        self.scaler.update()
        self.taken += 1

    @torch.no_grad()
    def _pull(self) -> None:
        for group in self._adamw.param_groups:
            weights = group["params"]
            starts = [self._start[parameter] for parameter in weights]
            torch._foreach_lerp_(weights, starts, group["lr"] * self._settings.anchor)

    def moments(self) -> dict[str, Tensor]:
        """Return AdamW's state by ``MOMENT.PARAMETER``; with `taken` and the weights it determines all later steps."""
        return {
            f"{moment}.{name}": self._adamw.state[parameter][moment]
            for name, parameter in self._parameters.items()
            for moment in MOMENTS
            if parameter in self._adamw.state
        }

    @torch.no_grad()
    def restore(self, taken: int, moments: Mapping[str, Tensor]) -> None:
        """Continue from the `moments` saved after `taken` steps."""
        self.taken = taken
        for name, parameter in self._parameters.items():
            if f"step.{name}" in moments:
                self._adamw.state[parameter] = {
                    moment: _placed(moments[f"{moment}.{name}"], parameter) for moment in MOMENTS
                }


def _placed(moment: Tensor, parameter: Tensor) -> Tensor:
    """Copy a saved moment to the device of its parameter, into the parameter's memory layout.

    Fused AdamW reads a parameter and its moments in the order of memory, and files hold tensors in row-major order.
    """
    if moment.shape != parameter.shape:  # the number of steps, a scalar
        return moment.to(parameter.device, torch.float32)
    return torch.empty_like(parameter, dtype=torch.float32).copy_(moment)


def _groups(
    parameters: Mapping[str, nn.Parameter], settings: Optimization, factors: Mapping[str, float]
) -> list[dict[str, object]]:
    """Group the parameters by their weight decay and their factor on the learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decays = settings.decay == "all" or parameter.ndim >= 2
        key = (settings.weight_decay if decays else 0.0, factors.get(name, 1.0))
        groups.setdefault(key, []).append(parameter)
    return [{"params": members, "weight_decay": decay, "factor": factor} for (decay, factor), members in groups.items()]


class MovingAverage:
    """The exponential moving average of weights over steps, starting from the initial weights.

    After every step, ``average = decay * average + (1 - decay) * weights``.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._decay = decay
        self._parameters = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self.tensors = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        """The averages, by parameter name."""

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current weights."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - self._decay)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

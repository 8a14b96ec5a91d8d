"""WiSE-FT in a training loop of one's own, such as open_clip's. The callbacks of other trainers are made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mergekit_wise import launcher
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.interpolate import interpolate_
from mergekit_wise.api.merge import merge, opened_merge
from mergekit_wise.checkpoint import require_folder
from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.modules import restored, unwrapped
from mergekit_wise.options import MergeOptions

Model = str | Path | nn.Module | Mapping[str, Tensor]
Measure = Callable[[nn.Module], float | Mapping[str, float]]
Log = Callable[[dict[str, float], int], object]

EXAMPLE = "mixtures/epoch-{epoch}-alpha-{alpha}.safetensors"


@dataclass(eq=False)
class WiseFT:
    """Writes or measures mixtures of the zero-shot model and a model in training (WiSE-FT, Eq. 1).

    Call `begin` before the first step, and `after_epoch` after each epoch (`after_step` after each step, with
    `every`). Training goes on as without it, bit by bit: weights are set in place and put back, with buffers,
    gradients, modes and random-number generators. Only the main process does anything.

    Attributes:
        zeroshot: the zero-shot model: a file, a module or a state dict; None for the weights that training starts from.
            What is in memory is copied to the CPU by `begin`.
        alphas: the mixing coefficients. The fine-tuned model itself, alpha 1, is measured besides.
        save: the file to write each mixture to, as `merge` writes it, with ``{alpha}``, and ``{epoch}`` or ``{step}``
            where each is to be kept: ``mixtures/epoch-{epoch}-alpha-{alpha}.safetensors``.
        measure: a function of the module, whose weights are those of the mixture, in evaluation mode and without
            gradients; it returns a number, or numbers by name. Under DDP it must not compute gradients: the other
            processes would be waited for.
        suite: in place of `measure`, the names of data sets or suites for `evaluate`.
        evaluation: other arguments of `evaluate`, such as ``{"data": "/data", "workers": 4}``.
        every: the number of steps between two measurements; None for the end of each epoch.
        metric: the name of the number, if `measure` returns only one.
        log_to: a function of numbers by name (``wise/alpha-0.5/accuracy``) and the step, such as ``wandb.log``.
        part: the dotted name of the submodule that is mixed, if it is not the whole model.
        rules: other arguments of `merge`, such as ``{"keep": "ft:head.*"}``.
        history: of each number that was measured, its "epoch", "step", "alpha", "metric" and "value".
        written: the files that were written.
    """

    zeroshot: Model | None = None
    # Lightning gives callbacks attributes `log` and `log_dict`, so nothing here may have these names.
    _: KW_ONLY
    alphas: Sequence[float] = (0.5,)
    save: str | None = None
    measure: Measure | None = None
    suite: str | Sequence[str] | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    every: int | None = None
    metric: str = "accuracy"
    log_to: Log | None = None
    part: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list, init=False)
    written: list[Path] = field(default_factory=list, init=False)
    _start: Model | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError for arguments that contradict each other."""
        if self.measure is not None and self.suite is not None:
            raise UsageError("`measure` and `suite` are two ways to measure. Give one of them.")
        if self.save is None and self.measure is None and self.suite is None:
            raise UsageError(
                f"Nothing to do with the mixtures: give `measure`, `suite` or `save`, such as {EXAMPLE!r}."
            )
        if not self.alphas:
            raise UsageError("`alphas` is empty. Give at least one, such as 0.5.")
        if self.every is not None and self.every < 1:
            raise UsageError(f"`every` {self.every}: expected a number of steps, at least 1.")
        if self.save is not None and len({self._path(alpha, 1, 1) for alpha in self.alphas}) < len(self.alphas):
            raise UsageError(f"`save` {self.save}: several mixtures would have one name. Put {{alpha}} into it.")

    def begin(self, model: nn.Module, step: int = 0) -> None:
        """Check, before training, that mixtures with `model` can be computed; keep the weights that it starts from.

        Args:
            model: the model that will be trained.
            step: the number of steps that it was trained before, by a run that is resumed.

        Raises:
            UsageError: weights are sharded, or a resumed run does not start from the zero-shot model.
            WiseError: as `merge` does, if the two models do not fit, or the folder of `save` does not exist.
        """
        if self.suite is not None and launcher.world_size() > 1:
            raise UsageError(
                "`suite` is measured by one process, and this run has several. Give `measure`, or `save` and 'wise "
                "sweep' afterwards."
            )
        module = unwrapped(model, self.part)
        if self.zeroshot is None:
            if step:
                raise UsageError(
                    f"Training resumes at step {step}, so the model is not the zero-shot model any more. Give "
                    "`zeroshot`, the checkpoint that the first run started from."
                )
            self._start = _on_cpu(module.state_dict(), copy=True)
        elif isinstance(self.zeroshot, nn.Module):
            self._start = _on_cpu(unwrapped(self.zeroshot).state_dict(), copy=True)
        elif isinstance(self.zeroshot, Mapping):
            self._start = _on_cpu(self.zeroshot, copy=True)
        else:
            self._start = self.zeroshot
        for alpha in self.alphas:
            path = None if self.save is None else self._path(alpha, 1, 1)
            if path is not None:
                require_folder(path)
            with opened_merge(MergeOptions(self._start, module, path, alpha=alpha, **self.rules)):
                pass

    def after_epoch(self, model: nn.Module, epoch: float, step: int | None = None) -> dict[str, float]:
        """Write or measure the mixtures, unless that is done by steps; returns what was measured, by name.

        Args:
            model: the model in training, in its wrappers or not.
            epoch: the number of epochs that are done.
            step: the number of steps that are done; by default that of epochs.
        """
        if self.every is not None:
            return {}
        return self.mix(model, epoch, int(epoch) if step is None else step)

    def after_step(self, model: nn.Module, step: int, epoch: float = 0) -> dict[str, float]:
        """The same after a step, if `every` divides the number of steps that are done."""
        if self.every is None or step % self.every:
            return {}
        return self.mix(model, epoch, step)

    def mix(self, model: nn.Module, epoch: float, step: int) -> dict[str, float]:
        """Write or measure the mixtures now, in the main process; returns what was measured, by name."""
        if launcher.rank():
            return {}
        if self._start is None:
            raise UsageError("The zero-shot weights are not known yet. Call `begin` before training.")
        module = unwrapped(model, self.part)
        if self.save is not None:
            for alpha in self.alphas:
                path = self._path(alpha, epoch, step)
                merge(self._start, module, path, alpha=alpha, **self.rules)
                self.written.append(path)
        values: dict[str, float] = {}
        measure = self.measure if self.suite is None else self._on_suite
        if measure is not None:
            for alpha in sorted({*self.alphas, 1.0}):
                for metric, value in self._measured(measure, module, alpha).items():
                    record = {"epoch": epoch, "step": step, "alpha": alpha, "metric": metric, "value": value}
                    self.history.append(record)
                    values[f"wise/alpha-{alpha:g}/{metric}"] = value
        if self.log_to is not None and values:
            self.log_to(dict(values), step)
        return values

    def _measured(self, measure: Measure, module: nn.Module, alpha: float) -> dict[str, float]:
        assert self._start is not None
        with restored(module), torch.no_grad():
            if alpha != 1:
                own = _on_cpu(module.state_dict())
                interpolate_(module, self._start, own, alpha, **self.rules)
            found = measure(module.eval())
        try:
            named = found if isinstance(found, Mapping) else {self.metric: found}
            return {str(name): float(value) for name, value in named.items()}
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"`measure` returned {found!r:.100}. Expected a number, or a dict of numbers by name."
            ) from error

    def _on_suite(self, module: nn.Module) -> dict[str, float]:
        found = evaluate(module, self.suite, **self.evaluation)
        return {f"{record.dataset}/{record.metric}": record.value for record in found.records}

    def _path(self, alpha: float, epoch: float, step: int) -> Path:
        assert self.save is not None
        try:
            return Path(self.save.format(alpha=f"{alpha:g}", epoch=f"{epoch:g}", step=step))
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(
                f"`save` {self.save}: only {{alpha}}, {{epoch}} and {{step}} can be filled in, as in {EXAMPLE!r}."
            ) from error


def _on_cpu(state: Mapping[str, Tensor], *, copy: bool = False) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=copy) for name, tensor in state.items()}

"""Evaluations by an evaluator of one's own: which one the options name, what goes with it, and what it is given."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mergekit_wise import launcher
from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.scratch import scratch_folder
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.evaluation.command_evaluator import CommandEvaluator
from mergekit_wise.evaluation.own_evaluator import Mixture, ModelTask, TaskEvaluator, TaskResult
from mergekit_wise.evaluation.task_results import parse_results
from mergekit_wise.evaluation.variants import Variant
from mergekit_wise.option_types import ModelInMemory, Weights, declared_options, run
from mergekit_wise.options import EvalOptions, EvaluationOptions, MergeOptions, SweepOptions
from mergekit_wise.progress import silent

if TYPE_CHECKING:
    import torch

UNUSED = (
    *("suite", "unlabelled", "analyze", "output_ensemble", "dynamic", "calibrate", "per_class", "per_sample", "limit"),
    *("balanced", "seed", "classnames", "templates", "head", "head_features", "head_rows", "image_size", "recalibrate"),
    *("strict", "precision", "batch_size", "workers", "cache_images", "max_bad", "max_pixels"),
)
"""Options for images, labels and logits, of which an evaluator of one's own need not have any."""

PREFERENCES = ("nll", "ece", "estimated")
"""What a choice cannot be made by, for the same reason."""

MIXTURE = "mixture.safetensors"
PREFIX = ".wise-mixture-"
"""How the name of a folder begins that holds a merged file while it is evaluated."""


def uses_own_evaluator(options: EvaluationOptions) -> bool:
    """Whether the options name an evaluator in place of a suite."""
    return options.command is not None or options.evaluator is not None


def open_own_evaluator(options: EvaluationOptions, model: Weights) -> TaskEvaluator:
    """The evaluator that the options name; `model` decides what a function is given.

    If it is a module in memory, that is a module: of a sweep a copy for each mixture, whose weights are set in place,
    of an evaluation the module itself. Else it is a state dict. Raises UsageError for options that do not go with it.
    """
    if options.command is not None and options.evaluator is not None:
        raise UsageError("--command and --evaluator both evaluate. Leave one of the two out.")
    reference, version = str(options.reference or ""), options.evaluator_version or ""
    if options.command is not None:
        _require_usable(options, "--command", ())
        return CommandEvaluator.of(options.command, version, reference)
    # An evaluator that is no command may need torch, which takes seconds to import.
    from mergekit_wise.evaluation.function_evaluator import FunctionEvaluator
    from mergekit_wise.evaluation.named_evaluators import BUILT_IN, named_evaluator

    found, depends = options.evaluator, ""
    built_in = BUILT_IN.get(found.partition(":")[0]) if isinstance(found, str) else None
    _require_usable(options, "--evaluator", () if built_in is None else built_in.uses)
    if isinstance(found, str):
        found, depends = named_evaluator(found, options)
    if built_in is not None:
        return cast("TaskEvaluator", found)
    if not isinstance(found, TaskEvaluator):
        found = FunctionEvaluator.of(found, _module_of(options, model), f"{depends}\n{version}".strip(), reference)
        return _OfPackage(found, "", reference, depends) if depends else found
    told = f"{depends}\n{version}"
    reference = reference or found.reference
    return _OfPackage(found, told, reference, depends) if depends else _Configured(found, told, reference)


def mixture_of(merged: MergeOptions, results: Path | None, template: Checkpoint, variant: Variant) -> Mixture:
    """What an evaluator gets of a mixture, which `merged` describes without an output; mixed when it is asked for."""
    return Mixture(
        variant, template, partial(_merged_file, merged, results), partial(_state, merged), partial(_set, merged)
    )


def model_of(source: Weights, results: Path | None, checkpoint: Checkpoint, variant: Variant) -> Mixture:
    """What an evaluator gets of one model: its own file if it has one, else one that is written; the module itself."""
    itself = MergeOptions(source, source, alpha=0)
    path = Path(str(source))
    has_file = not isinstance(source, ModelInMemory) and path.exists()
    file = partial(_existing, path) if has_file else partial(_merged_file, itself, results)
    return Mixture(variant, checkpoint, file, partial(_state, itself), _as_it_is)


@dataclass(frozen=True)
class _Configured(ModelTask):
    """A `TaskEvaluator` with what the options say of it; `told` is a part of its identity."""

    evaluator: TaskEvaluator
    told: str
    reference: str

    def open(self, template: Checkpoint, note: Callable[[str], object]) -> None:
        if isinstance(self.evaluator, ModelTask):
            self.evaluator.open(template, note)

    @property
    def identity(self) -> str:
        return f"{self.evaluator.identity}\n{self.told}" if self.told else self.evaluator.identity

    @property
    def name(self) -> str:
        return self.evaluator.name

    @property
    def title(self) -> str:
        return self.evaluator.title

    def __call__(self, mixture: Mixture) -> Sequence[TaskResult]:
        found: Any = self.evaluator(mixture)
        return parse_results(tuple(found) if isinstance(found, Iterator) else found, self.title, self.name)


@dataclass(frozen=True)
class _OfPackage(_Configured):
    """An evaluator of another package, `origin`: its errors are sentences, and what it prints is no result."""

    origin: str

    def open(self, template: Checkpoint, note: Callable[[str], object]) -> None:
        from mergekit_wise.evaluation.named_evaluators import foreign_code

        with foreign_code(self.origin):
            super().open(template, note)

    def __call__(self, mixture: Mixture) -> Sequence[TaskResult]:
        from mergekit_wise.evaluation.named_evaluators import foreign_code

        with foreign_code(self.origin):
            return super().__call__(mixture)


def _require_usable(options: EvaluationOptions, name: str, uses: Collection[str]) -> None:
    """Raise UsageError for options that an evaluation by the option `name` does not look at, and for torchrun."""
    kind: Any = type(options)
    declared = declared_options(kind)
    if options.transform is not None:
        raise UsageError(
            f"`transform` preprocesses images that wise evaluates on by itself, and {name} measures in its own way. "
            "Leave one of the two out."
        )
    for unused in UNUSED:
        if unused in declared and unused not in uses and getattr(options, unused) not in (declared[unused].default, ()):
            raise UsageError(
                f"{declared[unused].flag} is about images that wise evaluates on by itself, and {name} measures in its "
                "own way. Leave one of the two out."
            )
    if options.data is not None and str(options.data) != os.environ.get("WISE_DATA"):
        raise UsageError(
            f"--data says where images are that wise evaluates on by itself, and {name} measures in its own way. Leave "
            "one of the two out."
        )
    for unused, default in (("model", None), ("device", "cpu")) if isinstance(options, EvalOptions) else ():
        if unused not in uses and getattr(options, unused) != default:
            raise UsageError(
                f"--{unused} has no effect on a checkpoint that is evaluated by {name}, which gets it as it is. Leave "
                "one of the two out."
            )
    if isinstance(options, SweepOptions) and options.prefer in PREFERENCES:
        raise UsageError(
            f"--prefer {options.prefer} is about logits, which {name} does not show. Choose another preference."
        )
    if launcher.world_size() > 1:
        raise UsageError(
            f"{name} evaluates one model at a time, in one process, and torchrun started {launcher.world_size()}. Run "
            "wise without torchrun; what evaluates may start its own processes."
        )


def _module_of(options: EvaluationOptions, model: Weights) -> Callable[[], torch.nn.Module] | None:
    if not isinstance(model, ModelInMemory):
        return None
    import torch

    if not isinstance(model.weights, torch.nn.Module):
        return None
    return partial(copy.deepcopy if isinstance(options, SweepOptions) else _as_it_is, model.weights)


def _as_it_is(module: torch.nn.Module) -> torch.nn.Module:
    return module


def _state(merged: MergeOptions) -> Mapping[str, torch.Tensor]:
    found: Any = run(merge, replace(merged, output=None, progress=silent))
    return cast("Mapping[str, torch.Tensor]", found)


def _set(merged: MergeOptions, module: torch.nn.Module) -> torch.nn.Module:
    from mergekit_wise.api.interpolate import interpolate_

    given: Any = type(merged)
    rules = {name: getattr(merged, name) for name in declared_options(given)}
    for name in ("zeroshot", "finetuned", "output"):
        del rules[name]
    return interpolate_(module, merged.zeroshot, merged.finetuned, **rules)


@contextmanager
def _existing(path: Path) -> Iterator[Path]:
    yield path.absolute()


@contextmanager
def _merged_file(merged: MergeOptions, results: Path | None) -> Iterator[Path]:
    """A merged file in a folder beside the results, which is removed at the end of the block."""
    parent = Path(tempfile.gettempdir()) if results is None else results.resolve().parent
    with ExitStack() as stack:
        try:
            place = stack.enter_context(scratch_folder(parent, PREFIX))
        except OSError as error:
            raise OutputError(
                f"{parent}: a merged file cannot be written there ({error.strerror}). Choose another folder with "
                "--results."
            ) from error
        file = place / MIXTURE
        try:
            run(merge, replace(merged, output=file, progress=silent))
        except OutputError as error:
            raise OutputError(f"{error} Merged files lie beside the results file, which --results names.") from error
        yield file

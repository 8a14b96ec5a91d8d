"""What the options say of a user's own transform, and of a module that is called as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError, UsageError
from mergekit_wise.models.in_memory import require_evaluable
from mergekit_wise.options import EvalOptions, ModelOptions, PredictOptions, SweepOptions

if TYPE_CHECKING:
    from torch import nn

    from mergekit_wise.models.own_transform import OwnTransform

O = TypeVar("O", EvalOptions, SweepOptions, PredictOptions)  # noqa: E741

_OF_WEIGHTS = ("model", "head", "head_features", "head_rows", "image_size", "templates")
"""Options that say how a model is made of weights."""


def prepared(options: O) -> O:
    """The options with the transform as an `OwnTransform`, which keeps its identity through the whole run.

    Raises ModelError for a module that can be evaluated only with a transform, and UsageError for options that have no
    effect on a module that is called itself.
    """
    if options.transform is None:
        for source in _sources(options):
            require_evaluable(source, options.model)
        return options
    from mergekit_wise.models.own_transform import OwnTransform

    options = replace(options, transform=OwnTransform.of(options.transform))
    if to_call(options) is not None:
        for name in _OF_WEIGHTS:
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} has no effect on a module that is called itself, which `transform` "
                    "asks for. Leave one of the two out."
                )
    if isinstance(options, SweepOptions) and options.recalibrate is not None:
        raise UsageError(
            "--recalibrate estimates statistics with the preprocessing that a model declares, not with `transform`. "
            "Leave one of the two out."
        )
    return options


def to_call(options: ModelOptions) -> nn.Module | None:
    """The module that is called itself; None if the model is made of weights."""
    if options.transform is None:
        return None
    from mergekit_wise.models.called import module_to_call

    return module_to_call(*_sources(options))


def is_mixture(options: ModelOptions) -> bool:
    """Whether weights of mixtures are set, rather than those of a single model evaluated."""
    return isinstance(options, SweepOptions) or (isinstance(options, PredictOptions) and options.mix_with is not None)


def tried_transform(options: ModelOptions, examples: Dataset | None) -> OwnTransform | None:
    """The transform of the options, tried on the first image that can be read; None without one.

    Raises ModelError if it makes no tensor, SuiteError if images were transformed already and there is no transform.
    """
    if options.transform is None:
        return None
    from mergekit_wise.models.own_transform import OwnTransform

    transform = OwnTransform.of(options.transform)
    assert examples is not None
    for index in range(len(examples)):
        try:
            return transform.tried_on(examples.image(index))
        except SuiteError:
            continue
    raise SuiteError(f"{examples.title}: no image can be read, so nothing can be measured.")


def require_transformable(datasets: tuple[Dataset, ...], options: ModelOptions) -> None:
    """Raise SuiteError for images that the options' preprocessing cannot be applied to."""
    for dataset in datasets:
        if dataset.is_transformed and options.transform is None:
            raise SuiteError(
                f"{dataset.title}: gives float tensors, which a transform has made already. Give the data set without "
                "its transform, so that images are preprocessed as the model declares; or, if the tensors are what the "
                "model takes, transform=torch.nn.Identity()."
            )
        if dataset.corrupt is not None and options.transform is not None:
            raise SuiteError(
                f"{dataset.title}: its corruptions are applied to images as a model's declared preprocessing makes "
                "them, not to what `transform` makes. Leave one of the two out."
            )


def require_size(transform: OwnTransform, size: tuple[int, int], template: Checkpoint) -> None:
    """Raise ModelError if a transform makes images of another shape than a model of known architecture takes."""
    if transform.shape != (3, *size):
        raise ModelError(
            f"{template.path}: takes images of shape [3, {size[0]}, {size[1]}], and `transform` makes "
            f"{list(transform.shape)}."
        )


def notes_on_reuse(options: ModelOptions) -> Iterator[str]:
    """Says that results with a transform are not reused where its text does not say what it does."""
    if options.transform is None:
        return
    from mergekit_wise.models.own_transform import OwnTransform

    transform = options.transform
    results = None if isinstance(options, PredictOptions) else options.results
    if isinstance(transform, OwnTransform) and not transform.is_lasting and results is not None:
        name = transform.identity.partition(",")[0]
        yield (
            f"results with the transform {name} are measured again in every run, because its text does not say all "
            "that it does; the steps of torchvision.transforms do"
        )


def _sources(options: ModelOptions) -> tuple[Any, ...]:
    if isinstance(options, EvalOptions):
        return (options.checkpoint,)
    if isinstance(options, PredictOptions):
        return (options.checkpoint, options.mix_with)
    return (options.zeroshot, *(options.soup or (options.finetuned,)))

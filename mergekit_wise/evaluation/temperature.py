"""Fits the temperature of a model on labelled images, divides its head by it, and checks what that changed.

Knows no file: tensors are given as functions, and what comes of them is returned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import Calibration, calibrations
from mergekit_wise.analysis.temperature import COLDEST, HOTTEST, best_temperature
from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.checkpoint.tensors import StorageArray
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.evaluator import Evaluator
from mergekit_wise.evaluation.predictions import Predictions, as_answers
from mergekit_wise.evaluation.variants import Variant, reader
from mergekit_wise.merging.arithmetic import Scratch, decode, encode
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import BIAS, SCALE
from mergekit_wise.wording import plural

STEPS = {"F16": 2.0**-10, "BF16": 2.0**-7, "F8_E4M3": 2.0**-3, "F8_E5M2": 2.0**-2, "fp16": 2.0**-10, "bf16": 2.0**-7}
"""The distance between 1 and the next number of a dtype or precision; 2^-23 of all others."""

ROUNDING = 8
"""So many times that distance, of the largest logit, may rounding the head move one logit against another."""


@dataclass(slots=True)
class Seen:
    """The logits of one model that were computed in a pass."""

    logits: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    images: list[NDArray[np.int64]] = field(default_factory=list)

    def update(
        self, logits: Sequence[NDArray[np.float32]], labels: NDArray[np.int64], images: NDArray[np.int64]
    ) -> None:
        """Take a batch; see `engine.Observers`."""
        self.logits.append(logits[0].copy())
        self.labels.append(labels)
        self.images.append(images)


@dataclass(frozen=True, slots=True)
class Fit:
    """A temperature and what dividing by it does.

    Attributes:
        temperature: T.
        tensors: the changed tensors, flattened, in their dtypes' storage, by the checkpoint's names.
        images: how many were readable, on which T was fitted.
        before, after: the calibration on them.
        correct: how many predictions are right, before and after.
        changed: predictions that rounding the changed tensors to their dtype changed, all of them near ties.
        bad: why each unreadable image is, by its index.
    """

    temperature: float
    tensors: Mapping[str, StorageArray]
    images: int
    before: Calibration
    after: Calibration
    correct: tuple[int, int]
    changed: int
    bad: Mapping[int, str]


def fit_temperature(evaluator: Evaluator, source: Checkpoint, dataset: Dataset) -> Fit:
    """The temperature with the lowest NLL on a data set, and the tensors that divide the logits by it.

    Raises:
        ModelError: the logits are not those of a linear layer that the checkpoint holds, or dividing it changes
            predictions by more than rounding, or does not lower the NLL.
        SuiteError: the labels do not determine a temperature.
    """
    require_single_labels(dataset)
    seen, variant = Seen(), Variant(source.path.name, None, reader(source))
    from mergekit_wise.evaluation.engine import Observers

    found = evaluator.predict([0], [variant], dataset, Observers((), (0,), seen.update))
    names = _scaled_names(evaluator, source)
    if found.unsound[0]:
        raise ModelError(
            f"{source.path}: the logits of {plural(found.unsound[0], 'image')} of {dataset.title} are infinite or NaN. "
            "Try --precision fp32, or check the weights with 'wise inspect'."
        )
    logits, labels, images = np.concatenate(seen.logits), np.concatenate(seen.labels), np.concatenate(seen.images)
    temperature = best_temperature(logits, labels)
    if temperature in (COLDEST, HOTTEST):
        raise SuiteError(_undetermined(dataset, len(labels), temperature))
    tensors = {name: _divided(evaluator.model, source, name, temperature) for name in names}
    again = evaluator.predict([1], [_with(variant, tensors)], dataset)
    before, after = (calibrations(as_answers(dataset, each, ""))[0] for each in (found, again))
    changed = _changed(found, again, logits, images)
    step = max(STEPS.get(name, 2.0**-23) for name in (evaluator.engine.forward.precision, *_dtypes(source, names)))
    far = sum(margin > ROUNDING * step for margin in changed)
    if far:
        raise ModelError(
            f"{source.path}: dividing {', '.join(names)} by {temperature:.4g} changes {plural(far, 'prediction')} by "
            "more than rounding, so its logits are not a linear layer of its features. Nothing was written."
        )
    if "nll" not in before.values or not after.values.get("nll", np.inf) < before.values["nll"]:
        raise ModelError(
            f"{source.path}: is calibrated on {dataset.title} as well as {', '.join(_dtypes(source, names))} can "
            f"express (T = {temperature:.6g}). Nothing was written."
        )
    right = [as_answers(dataset, each, "").right[0].sum() for each in (found, again)]
    return Fit(
        temperature, tensors, len(labels), before, after, (int(right[0]), int(right[1])), len(changed), found.bad
    )


def require_single_labels(dataset: Dataset) -> None:
    """Raise SuiteError if images have several right classes."""
    if dataset.metric.accepted is not None:
        raise SuiteError(
            f"{dataset.title}: images have several right classes, and a temperature is fitted to a single label each. "
            "Choose another data set."
        )


def _scaled_names(evaluator: Evaluator, source: Checkpoint) -> list[str]:
    """The checkpoint's names of the tensors that logits are proportional to. Raises ModelError if there are none."""
    model = evaluator.model
    if not model.has_own_head:
        return [name for name, to in model.destinations.items() if to.name in (SCALE, BIAS)]
    names = [name for name, to in model.destinations.items() if to.name in model.head_names]
    parameters = dict(model.module.named_parameters(remove_duplicate=False))
    inside = {id(parameters[name]) for name in model.head_names}
    shared = [name for name, each in parameters.items() if id(each) in inside and name not in model.head_names]
    if not names or not evaluator.engine.forward.splits():
        raise ModelError(
            f"{source.path}: the logits of {model.architecture} are not one linear layer of its features, so there is "
            "no layer to divide by a temperature."
        )
    if shared:
        raise ModelError(f"{source.path}: the weight of its last layer is also {shared[0]}, which must not be divided.")
    return names


def _divided(model: Model, source: Checkpoint, name: str, temperature: float) -> StorageArray:
    """A tensor of the head divided by the temperature; the logarithm of a scale less that of the temperature.

    Computed in float64 and rounded once. Raises ModelError if the result does not fit into the tensor's dtype.
    """
    dtype = source.info(name).dtype
    numbers = decode(source.read(name), dtype, np.float64, Scratch(), 0)
    is_logarithm = model.destinations[name].name == SCALE
    divided = numbers - log(temperature) if is_logarithm else numbers / temperature
    stored = encode(divided, dtype, Scratch()).copy()
    if not np.isfinite(decode(stored, dtype, np.float64, Scratch(), 0)).all():
        raise ModelError(
            f"{source.path}: {name} divided by {temperature:.4g} does not fit into {dtype}. Save it in a wider dtype."
        )
    return stored


def _with(variant: Variant, tensors: Mapping[str, StorageArray]) -> Variant:
    """The variant with other elements of some of its tensors."""
    read: Callable[[str], tuple[TensorInfo, StorageArray]] = variant.read

    def changed(name: str) -> tuple[TensorInfo, StorageArray]:
        info, elements = read(name)
        return info, tensors.get(name, elements)

    return Variant(variant.model, None, changed)


def _changed(
    found: Predictions, again: Predictions, logits: NDArray[np.float32], images: NDArray[np.int64]
) -> list[float]:
    """For each image with another prediction: how far the two classes' logits were apart, as a share of the largest."""
    rows = np.flatnonzero(found.classes[0, images] != again.classes[0, images])
    first, second = found.classes[0, images[rows]], again.classes[0, images[rows]]
    apart = np.where(second < 0, np.inf, np.abs(logits[rows, first] - logits[rows, second]))
    finite = np.where(np.isfinite(logits[rows]), np.abs(logits[rows]), 0)
    return [float(margin) for margin in apart / np.maximum(finite.max(axis=1, initial=0), 1e-30)]


def _dtypes(source: Checkpoint, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.info(name).dtype.name for name in names))


def _undetermined(dataset: Dataset, images: int, temperature: float) -> str:
    why = (
        "the model is right on all of them, or as good as"
        if temperature == COLDEST
        else "the model's confidence says nothing about their labels"
    )
    return (
        f"{dataset.title}: {plural(images, 'image')} determine no temperature between {COLDEST:g} and {HOTTEST:g}: "
        f"{why}. Choose another data set, or more images."
    )

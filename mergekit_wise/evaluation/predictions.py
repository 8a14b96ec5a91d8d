"""From logits to predicted classes, and from these to records. Knows no images and no models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers, part_of_metric
from mergekit_wise.analysis.calibration import calibrations
from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.head_columns import head_columns
from mergekit_wise.errors import SuiteError
from mergekit_wise.results import Detail, Record
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 5


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of every variant for every image.

    Attributes:
        classes: predicted classes, int32 [V, N], of the variants, then of the output ensembles; -1 where the logits are
            not finite, or the image is unreadable.
        top5: whether the label is among the best five, bool [V, N].
        numbers: `analysis.answers.NUMBERS` of the probabilities, float32 [V, 4, N]; NaN where `classes` is -1.
        bad: for each unreadable image, by its index, what is wrong with it.
    """

    classes: NDArray[np.int32]
    top5: NDArray[np.bool_]
    numbers: NDArray[np.float32]
    bad: Mapping[int, str]

    @property
    def unsound(self) -> list[int]:
        """For each variant, the number of readable images whose logits are not finite."""
        return [int((row == -1).sum()) - len(self.bad) for row in self.classes]

    @property
    def readable(self) -> NDArray[np.int64]:
        """The indices of the images that could be read."""
        return np.delete(np.arange(self.classes.shape[1]), list(self.bad))


def choose_columns(dataset: Dataset, outputs: int, names: Sequence[str] | None = None) -> Tensor | None:
    """`column_table` as a tensor."""
    import torch

    table = column_table(dataset, outputs, names)
    return None if table is None else torch.from_numpy(table)


def column_table(dataset: Dataset, outputs: int, names: Sequence[str] | None = None) -> NDArray[np.int64] | None:
    """The columns of a head with `outputs` for each class of a data set: int64 [K, M], -1 where a class has fewer.

    `names` are those of the head's classes, if it knows them; see `head_columns`. None if each output is a class.
    Raises what `head_columns` raises, and SuiteError if there are no images or a label is not one of the classes.
    """
    _require_labels(dataset)
    columns = head_columns(dataset, outputs, names).columns
    if columns is None:
        return None
    widest = max(map(len, columns))
    rows = [(*several, *[-1] * (widest - len(several))) for several in columns]
    return np.array(rows, np.int64)


def class_logits(logits: Tensor, columns: Tensor | None) -> Tensor:
    """Logits [B, C] of a head -> [B, K] of a data set's classes: the largest of their columns; -inf without columns."""
    if columns is None:
        return logits
    best: Tensor = logits[:, columns.clamp(min=0)].masked_fill(columns < 0, -inf).amax(dim=-1)
    return best


def predict_classes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted class, int32 [B], and whether the label is among the best five, bool [B].

    Ties go to the lower index. Rows that hold NaN or inf, as of a model that overflows, predict -1: no class.

    Args:
        logits: float [B, K].
        labels: int64 [B].
    """
    import torch

    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = (logits > own).sum(dim=1) + ((logits == own) & lower).sum(dim=1)
    sound = (logits < inf).all(dim=1)
    return logits.argmax(dim=1).masked_fill(~sound, -1).int(), (before < _TOP) & sound


def probability_numbers(logits: Tensor, labels: Tensor) -> Tensor:
    """`analysis.answers.NUMBERS` of the softmax of logits float32 [B, K] with labels int64 [B].

    Returns float32 [4, B], none below +0; NaN for rows that hold NaN or inf.
    """
    import torch

    logarithms = logits.log_softmax(dim=1)
    probabilities = logarithms.exp()
    own = labels[:, None]
    nll = -logarithms.gather(1, own)[:, 0]
    brier = probabilities.square().sum(dim=1) - 2 * probabilities.gather(1, own)[:, 0] + 1
    entropy = torch.special.entr(probabilities).sum(dim=1)
    found = torch.stack([probabilities.amax(dim=1), nll, brier, entropy])
    sound = (logits < inf).all(dim=1)
    return (found.clamp(min=0) + 0.0).masked_fill(~sound, nan)  # + 0.0: no -0.0


def as_answers(dataset: Dataset, found: Predictions, role: str) -> Answers:
    """The answers of every variant for the readable images."""
    readable = found.readable
    return Answers(
        dataset=dataset.name,
        title=dataset.title,
        role=role,
        metric=part_of_metric(dataset.metric, readable, len(dataset)) if found.bad else dataset.metric,
        outputs=len(dataset.classnames),
        labels=dataset.labels[readable],
        images=readable,
        same_images=dataset.same_images,
        classes=found.classes[:, readable],
        numbers=found.numbers[:, :, readable],
    )


def as_details(
    dataset: Dataset, found: Predictions, drafts: Sequence[Mapping[str, Any]], seconds: float
) -> list[Detail]:
    """The record of each variant with its predictions; `drafts` hold the attributes of records that are not counted."""
    readable = found.readable
    metric = part_of_metric(dataset.metric, readable, len(dataset)) if found.bad else dataset.metric
    labels, classes = dataset.labels[readable], len(dataset.classnames)
    details = []
    calibrated = calibrations(as_answers(dataset, found, "").of_models(range(len(drafts))))
    for number, draft in enumerate(drafts):
        predicted = found.classes[number].astype(np.int64)
        try:
            scored = score(metric, predicted[readable], labels, classes)
        except ValueError as error:
            raise SuiteError(f"{dataset.title}: cannot be scored: {error}.") from error
        counted = {
            "metric": scored.name,
            "value": scored.value,
            "values": dict(scored.values),
            "worst": scored.worst,
            "interval": scored.interval,
            "correct": scored.correct,
            "total": scored.total,
            # Of several labels of an image, only the first was looked for.
            "top5": int(found.top5[number].sum()) if classes > _TOP and metric.accepted is None else None,
            "bad": len(found.bad),
            "unsound": found.unsound[number],
            "seconds": seconds,
            "calibration": dict(calibrated[number].values),
            "reliability": calibrated[number].bins,
        }
        details.append(Detail(Record(**{**draft, **counted}), dataset, predicted, found.top5[number], found.bad))
    return details


def notes_on(records: Sequence[Record]) -> Iterator[str]:
    """What a reader of the records should know: data sets that are incomplete, logits that are not finite."""
    for record in records:
        if record.limit is None and record.expected not in (None, record.total + record.bad):
            yield f"{record.title}: found {record.total + record.bad:,} of {record.expected:,} images."
        if record.bad:
            are = "is" if record.bad == 1 else "are"
            yield f"{record.title}: {plural(record.bad, 'image')} could not be read and {are} not counted."
        if record.unsound:
            model = "" if record.at is None else f" at {record.at}"
            images = "1 image" if record.unsound == 1 else f"{record.unsound:,} images"
            yield (
                f"{record.title}: the logits of {images}{model} are infinite or NaN, which counts as wrong. "
                "Try --precision fp32, or check the weights with 'wise inspect'."
            )


def _require_labels(dataset: Dataset) -> None:
    where = f" in {dataset.location}" if dataset.location else ""
    if len(dataset) == 0:
        raise SuiteError(f"{dataset.title}: has no images{where}. Download or unpack it again.")
    wrong = np.flatnonzero((dataset.labels < 0) | (dataset.labels >= len(dataset.classnames)))
    if len(wrong):
        first = int(wrong[0])
        raise SuiteError(
            f"{dataset.title}: {len(wrong)} labels are not among its {len(dataset.classnames)} classes, the first "
            f"being {dataset.labels[first]} of {dataset.sample(first)}{where}. Check the class names."
        )

"""What models answered for each image of a data set. Knows numbers only; results files keep them, see `results`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.metrics import is_right
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.wording import plural, shown

NUMBERS = ("confidence", "nll", "brier", "entropy")
"""What is kept of an image's probabilities: the largest one; the negative logarithm, in nats, of the label's; the sum
over the classes of the squared difference from the label's one-hot vector, in [0, 2]; the entropy in nats."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What V models answered for the same N readable images of one data set.

    Attributes:
        dataset, title, role: as in a record.
        metric: of these N images: its groups and accepted classes refer to them.
        outputs: the number of the data set's classes, K.
        labels: int64 [N], in [0, K).
        images: int64 [N], the indices of the images in the data set, ascending.
        same_images: equal for data sets made of the same images, whose indices then name the same ones; else empty.
        classes: int32 [V, N], predicted classes; -1 for no prediction, which is never right.
        numbers: float32 [V, 4, N], the `NUMBERS` of the softmax over the data set's classes, where the logit of a class
            is the largest of its columns; NaN for an image whose logits are not finite. Where the metric is ``mean``,
            [V, 1, N], the scores; classes are then -1.
    """

    dataset: str
    title: str
    role: str
    metric: Metric
    outputs: int
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    same_images: str
    classes: NDArray[np.int32]
    numbers: NDArray[np.float32]

    def __repr__(self) -> str:
        models, images = self.classes.shape
        return f"<Answers: {plural(models, 'model')}, {plural(images, 'image')} of {shown(self.dataset)}>"

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which answers count as right, bool [V, N]."""
        return np.stack([is_right(self.metric, row.astype(np.int64), self.labels) for row in self.classes])

    def number(self, name: str) -> NDArray[np.float32]:
        """One of the `NUMBERS`, float32 [V, N]."""
        return self.numbers[:, NUMBERS.index(name)]

    def of_models(self, rows: Sequence[int]) -> "Answers":
        """The answers of some of the models, in this order."""
        chosen = list(rows)
        return replace(self, classes=self.classes[chosen], numbers=self.numbers[chosen])

    def of_images(self, rows: NDArray[np.int64]) -> "Answers":
        """The answers for some of the images: distinct positions, int64 [n], ascending."""
        return replace(
            self,
            metric=part_of_metric(self.metric, rows, len(self.labels)),
            labels=self.labels[rows],
            images=self.images[rows],
            classes=self.classes[:, rows],
            numbers=self.numbers[:, :, rows],
        )


def stacked(each: Sequence[Answers]) -> Answers:
    """The answers of several models on one data set, for the images that all of them could read.

    If an evaluator scored the items of one model other than 0 and 1, those of all are scores.
    """
    if len({one.metric.kind for one in each}) > 1:
        each = [as_scores(one) for one in each]
    shared = each[0].images
    for other in each[1:]:
        shared = np.intersect1d(shared, other.images, assume_unique=True)
    parts = [
        one if len(one.images) == len(shared) else one.of_images(np.flatnonzero(np.isin(one.images, shared)))
        for one in each
    ]
    return replace(
        parts[0],
        classes=np.concatenate([part.classes for part in parts]),
        numbers=np.concatenate([part.numbers for part in parts]),
    )


def of_items(dataset: str, title: str, role: str, items: NDArray[np.float64]) -> Answers:
    """The scores of one model for N items, float64 [N]: if all are 0 or 1, as right and wrong answers."""
    count = len(items)
    is_right = bool(((items == 0) | (items == 1)).all())
    classes = np.where(items == 1, 0, -1) if is_right else np.full(count, -1)
    numbers = np.full((1, len(NUMBERS), count), np.nan) if is_right else items[None, None]
    return Answers(
        dataset=dataset,
        title=title,
        role=role,
        metric=Metric("top-1" if is_right else "mean"),
        outputs=1,
        labels=np.zeros(count, np.int64),
        images=np.arange(count),
        same_images="",
        classes=classes[None].astype(np.int32),
        numbers=numbers.astype(np.float32),
    )


def as_scores(answers: Answers) -> Answers:
    """The same answers with a score for each: 1 where it is right, 0 where it is wrong."""
    if answers.metric.kind == "mean":
        return answers
    scores = answers.right[:, None].astype(np.float32)
    return replace(answers, metric=Metric("mean"), classes=np.full_like(answers.classes, -1), numbers=scores)


def part_of_metric(metric: Metric, rows: NDArray[np.int64], images: int) -> Metric:
    """The metric of the images in `rows`. A group of frames whose anchor, the first one, is missing is left out."""
    number = np.full(images, -1)
    number[rows] = np.arange(len(rows))
    groups = {name: number[members] for name, members in metric.groups.items()}
    if metric.kind == "all-in-group":
        groups = {name: members for name, members in groups.items() if members[0] >= 0}
    accepted = None if metric.accepted is None else tuple(metric.accepted[row] for row in rows)
    return Metric(metric.kind, {name: members[members >= 0] for name, members in groups.items()}, accepted)

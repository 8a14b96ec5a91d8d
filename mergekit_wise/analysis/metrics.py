"""From predicted classes to the number that a data set reports, with its 95 % interval.

Knows predictions, labels and groups; knows no logits, no images and no models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.estimate import clopper_pearson
from mergekit_wise.datasets.dataset import Metric

Classes = NDArray[np.int64]
Flags = NDArray[np.bool_]

RESAMPLES = 1000
_PORTION = 100
_SEED = 20220619
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Score:
    """What a model achieves on a data set.

    Attributes:
        name: the kind of the metric.
        value: the reported number, in [0, 1].
        correct, total: top-1 counts over all samples, whatever the metric.
        values: other numbers in [0, 1] by name: "top-1", "mean-per-class", "pm-0", and the accuracy of each group.
        interval: 95 % interval of `value`, as described in :func:`score`.
        worst: the name of the worst group, if the metric is worst-group.
    """

    name: str
    value: float
    correct: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] = (0.0, 1.0)
    worst: str = ""


def score(metric: Metric, predictions: Classes, labels: Classes, classes: int) -> Score:
    """The value of `metric` for the predictions.

    A prediction is right if it is the label, or among the accepted classes of its sample. The metrics:

    - top-1: the share of samples that are right. Interval: Clopper-Pearson.
    - mean-per-class: the mean, over the classes that occur among the labels, of the share that is right.
    - macro-f1: the mean of F1 over the classes that occur among the labels, 0 for a class without a right prediction,
      as in WILDS: scikit-learn's f1_score(average="macro", labels=unique(labels)).
    - worst-group: the lowest top-1 of the groups that have samples, as in WILDS for FMoW. Interval: from the lowest
      of the groups' lower Clopper-Pearson bounds to the lowest of their upper ones, the latter at a level divided by
      the number of groups: any of them may truly be the worst.
    - all-in-group: the share of groups of which every sample is right. Interval: Clopper-Pearson over groups.

    The intervals of mean-per-class and macro-f1 are normal around the value, cut at 0 and 1, with the standard error
    of 1000 seeded bootstrap resamples of the samples; if all or none are right, that error is zero and the interval is
    Clopper-Pearson of top-1. The interval of macro-f1 is too narrow where many classes have only a few samples: those
    that occur at all occur more often than is to be expected.

    Args:
        metric: its groups and accepted classes refer to the same samples.
        predictions: int64 [N], in [0, `classes`), or -1 for no prediction, which is never right.
        labels: int64 [N], in [0, `classes`).
        classes: number of classes of the data set.

    Raises:
        ValueError: no samples, lengths that differ, classes out of range, or groups that are all empty.
    """
    _check(predictions, labels, classes)
    right = is_right(metric, predictions, labels)
    correct, total = int(right.sum()), len(labels)
    values = {"top-1": correct / total, "mean-per-class": _mean_recall(labels, right, classes)}
    shares: dict[str, tuple[int, int]] = {}
    if metric.kind != "all-in-group":  # groups of frames are thousands, and no number of interest each
        shares = {name: (int(right[rows].sum()), len(rows)) for name, rows in metric.groups.items() if len(rows)}
        values |= {name: hits / count for name, (hits, count) in shares.items()}
    match metric.kind:
        case "top-1":
            value, interval, worst = values["top-1"], clopper_pearson(correct, total), ""
        case "mean-per-class" | "macro-f1":
            table = _Table.of(np.where(right, labels, predictions), labels, classes)
            value, worst = float(table.value(metric.kind, table.counts)), ""
            interval = clopper_pearson(correct, total) if correct in (0, total) else table.interval(metric.kind)
        case "worst-group":
            _require_filled(metric)
            worst = min(shares, key=lambda name: shares[name][0] / shares[name][1])
            value, interval = shares[worst][0] / shares[worst][1], _of_worst(list(shares.values()))
        case _:  # "all-in-group"
            groups = _require_filled(metric)
            whole = sum(bool(right[rows].all()) for rows in groups)
            value, interval, worst = whole / len(groups), clopper_pearson(whole, len(groups)), ""
            values["pm-0"] = sum(bool(right[rows[0]]) for rows in groups) / len(groups)
    values.pop(metric.kind, None)
    return Score(metric.kind, value, correct, total, values, interval, worst)


def _of_worst(shares: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The 95 % interval of the lowest of several shares, each correct of total."""
    low = min(clopper_pearson(*share)[0] for share in shares)
    return low, min(clopper_pearson(*share, 1 - 0.05 / len(shares))[1] for share in shares)


def is_right(metric: Metric, predictions: Classes, labels: Classes) -> Flags:
    """Which predictions count as right, bool [N]."""
    right: Flags = predictions == labels
    if metric.accepted is not None:
        others = (int(p) in accepted for p, accepted in zip(predictions, metric.accepted, strict=True))
        right = right | np.fromiter(others, bool, len(right))
    return right


def _check(predictions: Classes, labels: Classes, classes: int) -> None:
    if len(labels) == 0 or len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels: nothing to score")
    if labels.min() < 0 or labels.max() >= classes or predictions.min() < -1 or predictions.max() >= classes:
        raise ValueError(f"labels or predictions out of the range of {classes} classes")


def _require_filled(metric: Metric) -> list[Classes]:
    groups = [rows for rows in metric.groups.values() if len(rows)]
    if not groups:
        raise ValueError(f"{metric.kind} needs groups, and none has samples")
    return groups


def _mean_recall(labels: Classes, right: Flags, classes: int) -> float:
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[right], minlength=classes)
    return float(np.mean(hits[counts > 0] / counts[counts > 0]))


@dataclass(frozen=True, slots=True)
class _Table:
    """The K cells of the confusion matrix that are not empty, int64 [K] each; prediction -1 stands for none."""

    labels: Classes
    predictions: Classes
    counts: Classes
    classes: int

    @classmethod
    def of(cls, predictions: Classes, labels: Classes, classes: int) -> "_Table":
        cells, counts = np.unique(labels * (classes + 1) + predictions + 1, return_counts=True)
        return cls(cells // (classes + 1), cells % (classes + 1) - 1, counts, classes)

    def value(self, kind: str, counts: Classes) -> NDArray[np.float64]:
        """The metric of tables with these cells: counts int64 [..., K] -> float64 [...]."""
        actual = self._sums(self.labels, counts)
        hits = self._sums(self.labels, np.where(self.labels == self.predictions, counts, 0))
        # F1 = 2 TP / (2 TP + FP + FN): the denominator adds the samples of the class and the predictions of it.
        below = actual if kind == "mean-per-class" else (actual + self._sums(self.predictions, counts)) / 2
        occurring = actual > 0
        each = np.divide(hits, below, out=np.zeros(below.shape), where=below > 0)
        result: NDArray[np.float64] = np.where(occurring, each, 0).sum(-1) / occurring.sum(-1)
        return result

    def interval(self, kind: str) -> tuple[float, float]:
        total = int(self.counts.sum())
        rng = np.random.default_rng(_SEED)
        # In portions, because a table of 1000 classes has tens of thousands of cells.
        draws = (rng.multinomial(total, self.counts / total, size=_PORTION) for _ in range(RESAMPLES // _PORTION))
        spread = float(np.std(np.concatenate([self.value(kind, portion) for portion in draws])))
        value = float(self.value(kind, self.counts))
        return max(0.0, value - _NORMAL_95 * spread), min(1.0, value + _NORMAL_95 * spread)

    def _sums(self, columns: Classes, counts: Classes) -> NDArray[np.float64]:
        """Counts added up by class: [..., K] -> [..., classes], without those of class -1."""
        sums = np.zeros((*counts.shape[:-1], self.classes + 1))
        order = np.argsort(columns, kind="stable")
        present, starts = np.unique(columns[order], return_index=True)
        sums[..., present] = np.add.reduceat(counts[..., order], starts, axis=-1)
        return sums[..., : self.classes]

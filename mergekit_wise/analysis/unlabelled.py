"""Estimates accuracy on images without labels from how sure a model is of them, and of labelled reference images.

For each mixture by itself, with labelled reference images S and unlabelled images U:

- AC, average confidence: the mean over U of the largest probability.
- DoC, difference of confidences: the accuracy on S plus the mean confidence on U less that on S (Guillory et al., ICCV
  2021).
- ATC, average thresholded confidence: with the threshold t for which as many images of S have a score below t as S has
  wrong answers, the share of U whose score is at least t (Garg et al., ICLR 2022). The score is the negative entropy.

No estimate is a measurement: each is right only if confidence means on U what it means on S. A back-test on labelled
shifts, which treats their images as U and then looks at the labels, shows how far off it is. Knows numbers only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.paired import LEVEL, RESAMPLES, SEED, Evidence, Numbers, Weights, drawn_weights

ESTIMATED = "average of estimates"
BOTH_ESTIMATED = "average of reference and estimates"
"""Names of the columns of averages, beside the reference and each set of unlabelled images."""

METHODS = ("ATC", "DoC", "AC", "lowest entropy")
"""What could choose an alpha without labels."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """Estimates for V mixtures on one set of images.

    Attributes:
        dataset, title: of the images.
        images: how many could be read.
        atc, doc, ac: estimated accuracies, float64 [V]; `doc` may lie outside [0, 1].
        entropy: the mean entropy in nats, float64 [V]; no estimate of an accuracy.
        low, high: the 95 % interval of `atc` in resamples of S and U, float64 [V]; NaN if it was not computed.
        accuracy: the share of right answers, float64 [V]; None without labels.
    """

    dataset: str
    title: str
    images: int
    atc: Numbers
    doc: Numbers
    ac: Numbers
    entropy: Numbers
    low: Numbers
    high: Numbers
    accuracy: Numbers | None = None

    def by_method(self) -> Mapping[str, Numbers]:
        """What each of `METHODS` maximises, float64 [V]."""
        return dict(zip(METHODS, (self.atc, self.doc, self.ac, -self.entropy), strict=True))


def estimate(reference: Answers, images: Answers) -> Estimated:
    """The estimates on `images` by every mixture, without intervals; no label of `images` is looked at.

    Raises ValueError if there is no image.
    """
    if not len(reference.labels) or not len(images.labels):
        raise ValueError("no images to estimate an accuracy from")
    known = _Known.of(reference)
    confidence, score = _confidence(images), _score(images)
    ac = confidence.mean(axis=1)
    once = np.ones((1, confidence.shape[1]), np.float32)
    thresholds = [row.threshold(np.ones((1, known.images), np.float32)) for row in known.rows]
    atc = np.array([_share_above(np.sort(row), once, t)[0] for row, t in zip(score, thresholds, strict=True)])
    unknown = np.full(len(atc), np.nan)
    doc = known.accuracy + ac - known.confidence
    entropy = np.nan_to_num(images.number("entropy").astype(np.float64), nan=np.log(max(images.outputs, 1)))
    return Estimated(
        images.dataset, images.title, confidence.shape[1], atc, doc, ac, entropy.mean(axis=1), unknown, unknown
    )


def estimates(
    reference: Answers, sets: Sequence[Answers], *, resamples: int = RESAMPLES
) -> tuple[tuple[Estimated, ...], Evidence]:
    """The estimates on each set with their intervals, and the evidence that mixtures are compared by.

    Its columns are the reference's accuracy, ATC on each set, the mean of these estimates (`ESTIMATED`, if there are
    several), and the mean of the reference and that mean (`BOTH_ESTIMATED`). The images of a resample are the same for
    all mixtures; those of the reference are the same for all columns.
    """
    found = [estimate(reference, each) for each in sets]
    known = _Known.of(reference)
    mixtures = len(known.rows)
    draws = np.empty((1 + len(sets), resamples, mixtures), np.float32)
    thresholds: list[list[_Thresholds]] = [[] for _ in known.rows]
    start = 0
    for weights in drawn_weights(np.zeros(known.images, np.int64), resamples, SEED):
        stop = start + len(weights)
        draws[0, start:stop] = weights @ known.right.T.astype(np.float32) / weights.sum(axis=1, keepdims=True)
        for row, parts in zip(known.rows, thresholds, strict=True):
            parts.append(row.threshold(weights))
        start = stop
    joined = [_Thresholds.joined(parts) for parts in thresholds]
    for number, each in enumerate(sets, 1):
        score = _score(each)
        orders = np.argsort(score, axis=1, kind="stable")
        start = 0
        for weights in drawn_weights(np.zeros(score.shape[1], np.int64), resamples, SEED + number):
            stop = start + len(weights)
            for mixture, order in enumerate(orders):
                part = joined[mixture].part(start, stop)
                draws[number, start:stop, mixture] = _share_above(score[mixture, order], weights[:, order], part)
            start = stop
    tail = (1 - LEVEL) / 2
    bands = np.quantile(draws[1:].astype(np.float64), (tail, 1 - tail), axis=1)
    with_bands = [replace(one, low=low, high=high) for one, low, high in zip(found, *bands, strict=True)]
    return tuple(with_bands), _evidence(reference, known, found, draws)


def _evidence(reference: Answers, known: "_Known", found: Sequence[Estimated], draws: NDArray[np.float32]) -> Evidence:
    sets = len(found)
    columns = [reference.title, *(each.title for each in found)]
    parts = list(np.eye(1 + sets))
    of_sets = np.array([0.0] + [1 / sets] * sets)
    if sets > 1:
        columns, parts = [*columns, ESTIMATED], [*parts, of_sets]
    columns, parts = [*columns, BOTH_ESTIMATED], [*parts, (np.eye(1 + sets)[0] + of_sets) / 2]
    weights = np.array(parts)
    steps = np.array([1 / known.images, *(1 / each.images for each in found)])
    values = np.array([known.accuracy, *(each.atc for each in found)])
    mixed = np.tensordot(weights.astype(np.float32), draws, axes=1)
    totals = (known.images,) + (0,) * (len(parts) - 1)
    return Evidence(tuple(columns), weights @ values, mixed, (weights * steps).max(axis=1), totals)


def _confidence(answers: Answers) -> Numbers:
    """float64 [V, N]; 0 where logits are not finite."""
    return np.nan_to_num(answers.number("confidence").astype(np.float64), nan=0.0)


def _score(answers: Answers) -> Numbers:
    """The negative entropy, float64 [V, N]; minus infinity where logits are not finite.

    The paper tries it beside the largest probability. Close to certainty, float32 still tells entropies apart where
    many probabilities are exactly 1.
    """
    entropy = answers.number("entropy").astype(np.float64)
    return np.where(np.isnan(entropy), -np.inf, -entropy)


@dataclass(frozen=True, slots=True)
class _Thresholds:
    """A threshold for each of R resamples of S: its value, and the share of the images at it that count as above.

    Where several images of S have the score of the threshold, or one was drawn several times, the share makes the
    weight of the images above it that of the right answers, so that on S itself the estimate is the accuracy.

    Attributes:
        values: float64 [R]; infinity if all are wrong.
        shares: float64 [R], in (0, 1].
    """

    values: Numbers
    shares: Numbers

    @classmethod
    def joined(cls, parts: Sequence["_Thresholds"]) -> "_Thresholds":
        return cls(np.concatenate([p.values for p in parts]), np.concatenate([p.shares for p in parts]))

    def part(self, start: int, stop: int) -> "_Thresholds":
        return _Thresholds(self.values[start:stop], self.shares[start:stop])


@dataclass(frozen=True, slots=True)
class _Row:
    """S as one mixture sees it: scores, float64 [N], ascending; the images in this order; which answers are wrong.

    `firsts` and `lasts`, int64 [N], are the positions of the first image with the same score, and of the one after the
    last.
    """

    scores: Numbers
    order: NDArray[np.int64]
    wrong: NDArray[np.float32]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]

    @classmethod
    def of(cls, score: Numbers, right: NDArray[np.bool_]) -> "_Row":
        order = np.argsort(score, kind="stable").astype(np.int64)
        scores = score[order]
        firsts, lasts = np.searchsorted(scores, scores, "left"), np.searchsorted(scores, scores, "right")
        return cls(scores, order, (~right).astype(np.float32), firsts, lasts)

    def threshold(self, weights: Weights) -> _Thresholds:
        """For images with these weights, float32 [R, N], of which each row has a positive sum."""
        wrong = weights[:, self.order] @ self.wrong[self.order].astype(np.float64)
        sums = np.zeros((len(weights), weights.shape[1] + 1))
        np.cumsum(weights[:, self.order], axis=1, dtype=np.float64, out=sums[:, 1:])
        # Weights are multiples of a number above 1, up to rounding, so that less than that is no image.
        at = (sums[:, 1:] <= wrong[:, None] + 0.25).sum(axis=1)
        none = at == weights.shape[1]
        at = np.where(none, 0, at)
        rows = np.arange(len(weights))
        below, through = sums[rows, self.firsts[at]], sums[rows, self.lasts[at]]
        weight = np.where(none, 1.0, through - below)
        shares = np.clip((through - np.maximum(wrong, below)) / weight, 0.0, 1.0)
        return _Thresholds(np.where(none, np.inf, self.scores[at]), shares)


@dataclass(frozen=True, slots=True)
class _Known:
    """S: which answers are right, bool [V, N]; accuracy and mean confidence, float64 [V]; a row for each mixture."""

    right: NDArray[np.bool_]
    accuracy: Numbers
    confidence: Numbers
    rows: tuple[_Row, ...]

    @classmethod
    def of(cls, reference: Answers) -> "_Known":
        right, score = reference.right, _score(reference)
        rows = tuple(_Row.of(one, hits) for one, hits in zip(score, right, strict=True))
        return cls(right, right.mean(axis=1), _confidence(reference).mean(axis=1), rows)

    @property
    def images(self) -> int:
        return len(self.right[0])


def _share_above(scores: Numbers, weights: Weights, thresholds: _Thresholds) -> Numbers:
    """The weighted share of images with ascending scores, float64 [M], at or above each threshold; weights [R, M]."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, dtype=np.float64, out=sums[:, 1:])
    rows = np.arange(len(weights))
    below = sums[rows, np.searchsorted(scores, thresholds.values, "left")]
    through = sums[rows, np.searchsorted(scores, thresholds.values, "right")]
    total = sums[:, -1]
    found: Numbers = (total - through + thresholds.shares * (through - below)) / total
    return found

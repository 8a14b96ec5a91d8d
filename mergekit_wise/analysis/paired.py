"""Compares mixtures image by image: all of them answered the same images, so errors that they share cancel.

Whether two intervals overlap says little then. Here images are drawn again with replacement, the same ones for every
mixture, and the differences of the results are looked at. Knows answers and numbers only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.calibration import BINS, bins_of
from mergekit_wise.analysis.candidate import BOTH, SHIFTS
from mergekit_wise.analysis.estimate import Estimate

RESAMPLES = 1000
SEED = 20220619
PORTION = 1 << 18
"""Weights, float32, of the resamples that are computed at once."""

LEVEL = 0.95

Numbers = NDArray[np.float64]
Weights = NDArray[np.floating[Any]]
"""How often each of N images was drawn, in each of R resamples [R, N]; float64 for the images as they are."""

Statistic = Callable[[Weights], Numbers]
"""Weights [R, N] -> what V mixtures achieve, [R, V]."""


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test: of the images that one of two models alone is right on.

    Source: McNemar, Psychometrika 12, 1947. 1 if there is no such image.
    """
    from scipy.special import bdtr

    images = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), images, 0.5)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What V mixtures achieve in C columns, and in R resamples of the images.

    Attributes:
        columns: their names, in the order of `candidate.columns`: the reference, each shift, and the averages.
        values: float64 [C, V].
        draws: float32 [C, R, V]; the images of a resample are the same for all columns and mixtures.
        steps: float64 [C], how far one answer moves a column that is made of shares of right answers; else 0.
        totals: for each column the number of answers of which it is the share that is right; 0 for any other number.
    """

    columns: tuple[str, ...]
    values: Numbers
    draws: NDArray[np.float32]
    steps: Numbers
    totals: tuple[int, ...] = ()

    @property
    def is_paired(self) -> bool:
        """Whether mixtures were compared image by image: yes."""
        return True

    def estimate(self, column: int, mixture: int) -> Estimate:
        """What a mixture achieves with its 95 % interval: Clopper-Pearson's for a share, else percentiles of draws.

        These are moved to lie around the value: where a class or a group is missed or looks worst by chance, draws are
        lower on the average than what they are drawn from.
        """
        value, total = float(self.values[column, mixture]), self.totals[column] if self.totals else 0
        if total:
            return Estimate.of_counts((round(value * total), total))
        draws = self.draws[column, :, mixture].astype(np.float64)
        low, high = np.quantile(draws - draws.mean() + value, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return Estimate(value, min(value, float(low)), max(value, float(high)))

    def difference(self, column: int, one: int, other: int) -> Estimate:
        """What mixture `one` achieves more than `other`, with its 95 % interval."""
        return self.contrasts(column, other).pointwise(one)

    def contrasts(self, column: int, base: int) -> "Contrasts":
        """The differences of all mixtures from `base` in a column."""
        values, draws = self.values[column], self.draws[column]
        differences = draws - draws[:, base : base + 1]
        return Contrasts(values - values[base], differences, float(self.steps[column]), base)


@dataclass(frozen=True, slots=True)
class Contrasts:
    """Differences of V mixtures from one of them.

    Few images that two mixtures answer differently say little, which resampling them does not see: if all four favour
    one side, hardly any resample favours the other. So the variance counts two such images more, one for each side, as
    if it were at least that uncertain (after Agresti and Min, Statistics in Medicine 24, 2005). Where accuracies on one
    data set are compared, this agrees with McNemar's exact test; `tests/analysis/test_paired.py` shows how closely.

    Attributes:
        values: float64 [V].
        draws: float32 [R, V], of each resample.
        step: how far one answer moves a difference; 0 if that is not known.
        base: the mixture from which the others differ; None if none of these is.
    """

    values: Numbers
    draws: NDArray[np.float32]
    step: float
    base: int | None

    @property
    def errors(self) -> Numbers:
        """The standard error of each difference, float64 [V]; 0 for the base alone."""
        errors: Numbers = np.sqrt(self._spread**2 + 2 * self.step**2)
        if self.base is not None:
            errors[self.base] = 0
        return errors

    @property
    def _spread(self) -> Numbers:
        spread: Numbers = self.draws.std(axis=0, dtype=np.float64)
        return spread

    def pointwise(self, mixture: int) -> Estimate:
        """The difference of one mixture with its 95 % interval, for a comparison that was planned."""
        from scipy.special import ndtri

        return self._estimate(mixture, float(ndtri(0.5 + LEVEL / 2)))

    def simultaneous(self, mixture: int, among: Sequence[int]) -> Estimate:
        """The same with an interval that holds for all mixtures in `among` at once, as after choosing one of them.

        From the largest studentised difference of each resample (Hall and Wilson, Biometrics 47, 1991).
        """
        return self._estimate(mixture, self._quantile(among, two_sided=True))

    def lower(self, mixture: int, among: Sequence[int]) -> float:
        """The lower bound of the difference that holds for all mixtures in `among` at once, one-sided, at 95 %."""
        bound = self._quantile(among, two_sided=False)
        return float(self.values[mixture] - bound * self.errors[mixture])

    def _estimate(self, mixture: int, bound: float) -> Estimate:
        value, error = float(self.values[mixture]), float(self.errors[mixture])
        return Estimate(value, value - bound * error, value + bound * error)

    def _quantile(self, among: Sequence[int], *, two_sided: bool) -> float:
        from scipy.special import ndtri

        spread = self._spread
        varying = [mixture for mixture in among if spread[mixture] > 0]
        alone = float(ndtri(0.5 + LEVEL / 2 if two_sided else LEVEL))
        if len(varying) < 2:
            return alone
        studentised = (self.draws[:, varying] - self.draws[:, varying].mean(axis=0)) / spread[varying]
        largest = np.abs(studentised).max(axis=1) if two_sided else studentised.max(axis=1)
        return max(alone, float(np.quantile(largest, LEVEL)))


def evidence(
    answers: Sequence[Answers], names: Mapping[str, str], *, resamples: int = RESAMPLES, error: str = ""
) -> Evidence:
    """What the mixtures achieve on the reference and the shifts, each in its own metric, and in resamples of images.

    Images are drawn within each data set; where a metric averages over classes or groups, within these (classes of a
    single image together), one image fewer than there are, so that the variance is not underestimated (Rao and Wu,
    JASA 83, 1988). Data sets made of the same images get the same ones.

    Args:
        answers: of the same mixtures on the reference, if there is one, and on each shift; companions are left out.
        names: what columns are called, by the data sets' names.
        resamples: R; the draws are the same each time.
        error: "nll" or "ece", the negative of which is compared in place of each data set's metric.

    Raises:
        ValueError: there is no answer to compare.
    """
    chosen = [*(a for a in answers if a.role == "reference"), *(a for a in answers if a.role == "shift")]
    if not chosen or not all(len(each.labels) for each in chosen):
        raise ValueError("no answers to compare")
    sets = [_Set.of_error(each, error) if error else _Set.of(each) for each in chosen]
    draws = np.empty((len(sets), resamples, len(chosen[0].classes)), np.float32)
    for place, members in enumerate(_together(sets)):
        if len(members) == 1 and (found := _by_patterns(sets[members[0]], resamples, SEED + place)) is not None:
            draws[members[0]] = found
            continue
        ids = np.unique(np.concatenate([sets[number].images for number in members]))
        strata = _strata(ids, [sets[number] for number in members])
        rows = [np.searchsorted(ids, sets[number].images) for number in members]
        start = 0
        for weights in drawn_weights(strata, resamples, SEED + place):
            stop = start + len(weights)
            for number, row in zip(members, rows, strict=True):
                own = weights if len(row) == len(ids) else np.ascontiguousarray(weights[:, row])
                draws[number, start:stop] = sets[number].statistic(own)
            start = stop
    values = np.concatenate([each.statistic(np.ones((1, len(each.images)))) for each in sets])
    has_reference = chosen[0].role == "reference"
    return _with_averages([names[each.dataset] for each in chosen], values, draws, sets, has_reference=has_reference)


def halved(answers: Sequence[Answers], seed: int) -> list[NDArray[np.bool_]]:
    """For each data set, which of its images are in the first half of a random split, bool [N].

    Classes and groups are halved where `evidence` draws within them, frames of one group stay together, and data sets
    made of the same images are split alike.
    """
    sets, rng = [_Set.of(each) for each in answers], np.random.default_rng((SEED, seed))
    found: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)] * len(sets)
    for members in _together(sets):
        ids = np.unique(np.concatenate([sets[number].images for number in members]))
        strata = _strata(ids, [sets[number] for number in members])
        first = np.empty(len(ids), np.bool_)
        first[np.lexsort((rng.random(len(ids)), strata))] = np.arange(len(ids)) % 2 == 0
        for number in members:
            found[number] = first[np.searchsorted(ids, sets[number].images)]
    return [_of_images(each, half) for each, half in zip(answers, found, strict=True)]


def _of_images(answers: Answers, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From what is drawn, images or groups of frames, to images."""
    if answers.metric.kind != "all-in-group":
        return chosen
    images = np.zeros(len(answers.labels), np.bool_)
    groups = [rows for rows in answers.metric.groups.values() if len(rows)]
    for rows, is_chosen in zip(groups, chosen, strict=True):
        images[rows] = is_chosen
    return images


def _with_averages(
    names: Sequence[str],
    values: Numbers,
    draws: NDArray[np.float32],
    sets: Sequence["_Set"],
    *,
    has_reference: bool,
) -> Evidence:
    """The evidence with the columns of the two averages, as `candidate.columns` has them."""
    columns, parts = list(names), list(np.eye(len(names)))
    shifts = len(names) - has_reference
    of_shifts = np.array([0.0] * has_reference + [1 / max(shifts, 1)] * shifts)
    if shifts > 1:
        columns, parts = [*columns, SHIFTS], [*parts, of_shifts]
    if shifts and has_reference:
        of_reference = np.eye(len(names))[0]
        columns, parts = [*columns, BOTH], [*parts, (of_reference + of_shifts) / 2]
    weights = np.array(parts)
    totals = tuple(each.total for each in sets) + (0,) * (len(parts) - len(sets))
    steps = (weights * [each.step for each in sets]).max(axis=1)
    if not all(each.step for each in sets):
        steps = np.where((weights > 0).sum(axis=1) == 1, steps, 0.0)
    mixed = np.tensordot(weights.astype(np.float32), draws, axes=1)
    return Evidence(tuple(columns), weights @ values, mixed, steps, totals)


@dataclass(frozen=True, slots=True)
class _Set:
    """A data set whose images can be drawn again.

    Attributes:
        key: equal for data sets of the same images.
        images: int64 [N], the images' numbers, ascending; for a metric over groups of frames, the groups'.
        strata: int64 [N], the class or group that an image is drawn within; None if it is drawn from all.
        statistic: what the mixtures achieve in resamples.
        step: how far one answer moves a value; 0 if the metric is no share of right answers.
        right: bool [V, N], if a value is the share of images, or of groups, that are right; else None.
    """

    key: object
    images: NDArray[np.int64]
    strata: NDArray[np.int64] | None
    statistic: Statistic
    step: float
    right: NDArray[np.bool_] | None = None

    @property
    def total(self) -> int:
        """Of how many images, or groups, a value is the share that are right; else 0."""
        return 0 if self.right is None else self.right.shape[1]

    @classmethod
    def of(cls, answers: Answers) -> "_Set":
        right, labels, kind = answers.right, answers.labels, answers.metric.kind
        key = answers.same_images or object()
        groups = [rows for rows in answers.metric.groups.values() if len(rows)]
        match kind:
            case "all-in-group":
                whole = np.array([right[:, rows].all(axis=1) for rows in groups]).T
                return cls(object(), np.arange(len(groups)), None, _share(whole), 1 / len(groups), whole)
            case "mean-per-class":
                counts = np.bincount(labels)
                per_image = 1 / counts[labels] / (counts > 0).sum()
                return cls(key, answers.images, labels, _share(right, per_image), float(per_image.max()))
            case "macro-f1":
                predictions = np.where(right, labels, answers.classes)
                return cls(key, answers.images, None, _f1(predictions, labels), 0.0)
            case "worst-group":
                member = np.zeros(len(labels), np.int64)
                for number, rows in enumerate(groups, 1):
                    member[rows] = member[rows] * (len(groups) + 1) + number
                strata = np.unique(member, return_inverse=True)[1]
                return cls(key, answers.images, strata, _worst(right, groups), 1 / min(map(len, groups)))
            case "mean":
                return cls(key, answers.images, None, _mean(answers.numbers[:, 0].astype(np.float64)), 0.0)
            case _:
                return cls(key, answers.images, None, _share(right), 1 / len(labels), right)

    @classmethod
    def of_error(cls, answers: Answers, error: str) -> "_Set":
        """Images for which the negative of a calibration number is what mixtures achieve."""
        if error == "nll":
            statistic = _mean(-answers.number("nll").astype(np.float64))
        else:
            statistic = _calibration(answers.right, answers.number("confidence").astype(np.float64))
        return cls(answers.same_images or object(), answers.images, None, statistic, 0.0)


def _by_patterns(data: _Set, resamples: int, seed: int) -> NDArray[np.float64] | None:
    """Shares in resamples, float64 [R, V], where only which mixtures are right on an image counts.

    Drawing how often each of a few hundred patterns occurs is the same as drawing images, and many times as fast. None
    if the patterns are nearly as many as the images, or if the value is no such share.
    """
    if data.right is None:
        return None
    images = data.right.shape[1]
    packed = np.ascontiguousarray(np.packbits(data.right, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if images < 2 or len(counts) > images / 8:
        return None
    drawn = np.random.default_rng(seed).multinomial(images - 1, counts / images, size=resamples)
    shares: NDArray[np.float64] = (drawn @ data.right[:, first].T.astype(np.float64)) / (images - 1)
    return shares


def _mean(numbers: Numbers) -> Statistic:
    """The mean of numbers, float64 [V, N]."""
    columns: dict[Any, Numbers] = {numbers.dtype: numbers.T, np.dtype(np.float32): numbers.T.astype(np.float32)}

    def mean(weights: Weights) -> Numbers:
        found: Numbers = (weights @ columns[weights.dtype]) / weights.sum(axis=1, keepdims=True)
        return found

    return mean


def _calibration(right: NDArray[np.bool_], confidence: Numbers) -> Statistic:
    """The negative of the expected calibration error; right bool [V, N], confidence float64 [V, N]."""
    models, images = right.shape
    gaps = np.zeros((images, models * BINS))
    for model in range(models):
        places = model * BINS + bins_of(confidence[model])
        gaps[np.arange(images), places] = right[model] - confidence[model]
    columns: dict[Any, Numbers] = {gaps.dtype: gaps, np.dtype(np.float32): gaps.astype(np.float32)}

    def error(weights: Weights) -> Numbers:
        sums = np.abs(weights @ columns[weights.dtype]).reshape(len(weights), models, BINS).sum(axis=2)
        found: Numbers = -sums / weights.sum(axis=1, keepdims=True)
        return found

    return error


def _share(right: NDArray[np.bool_], per_image: Numbers | None = None) -> Statistic:
    """The weighted share of the images that are right; `per_image` weights images besides how often they are drawn."""
    columns = right.T.astype(np.float32)

    def share(weights: Weights) -> Numbers:
        weights = weights if per_image is None else weights * per_image.astype(weights.dtype)
        found: Numbers = (weights @ columns) / weights.sum(axis=1, keepdims=True)
        return found

    return share


def _worst(right: NDArray[np.bool_], groups: Sequence[NDArray[np.int64]]) -> Statistic:
    """The lowest share of a group."""
    of_groups = [(rows, _share(right[:, rows])) for rows in groups]

    def worst(weights: Weights) -> Numbers:
        found: Numbers = np.min([share(weights[:, rows]) for rows, share in of_groups], axis=0)
        return found

    return worst


def _f1(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> Statistic:
    """The mean of F1 over the classes that occur among the labels that were drawn; predictions int64 [V, N]."""
    classes = int(max(predictions.max(), labels.max())) + 1

    def f1(weights: Weights) -> Numbers:
        actual = _by_class(weights, labels, classes)
        each = []
        for predicted in predictions:
            hits = _by_class(weights * (predicted == labels), labels, classes)
            answered = _by_class(weights * (predicted >= 0), np.maximum(predicted, 0), classes)
            below = (actual + answered) / 2
            scores = np.divide(hits, below, out=np.zeros_like(hits), where=below > 0)
            each.append(np.where(actual > 0, scores, 0).sum(axis=1) / (actual > 0).sum(axis=1))
        return np.stack(each, axis=1).astype(np.float64)

    return f1


def _by_class(weights: Weights, classes: NDArray[np.int64], count: int) -> Weights:
    """Weights [R, N] added up by class: float32 [R, count]."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums = np.zeros((len(weights), count), weights.dtype)
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _together(sets: Sequence[_Set]) -> list[list[int]]:
    """The numbers of the data sets that are made of the same images."""
    found: dict[object, list[int]] = {}
    for number, each in enumerate(sets):
        found.setdefault(each.key, []).append(number)
    return list(found.values())


def _strata(ids: NDArray[np.int64], sets: Sequence[_Set]) -> NDArray[np.int64]:
    """The stratum of each image, int64 [N]: that of the first data set that draws it within one."""
    strata = np.full(len(ids), -1)
    for each in sets:
        rows = np.searchsorted(ids, each.images)
        if each.strata is not None:
            strata[rows] = np.where(strata[rows] < 0, each.strata, strata[rows])
    counts = np.bincount(strata + 1)
    strata[counts[strata + 1] == 1] = -1  # nothing is known of how a single image of a class may vary
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def drawn_weights(strata: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Weights]:
    """Portions of the weights of N images in all resamples: of n images in a stratum, n - 1 are drawn."""
    rng, images = np.random.default_rng(seed), len(strata)
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    drawn = np.maximum(sizes - 1, 1)
    slots = np.repeat(np.arange(len(sizes)), drawn)
    starts, scale = (np.cumsum(sizes) - sizes)[slots], (sizes / drawn).astype(np.float32)[strata]
    portion = max(1, PORTION // images)
    for done in range(0, resamples, portion):
        count = min(portion, resamples - done)
        places = starts + (rng.random((count, len(slots)), dtype=np.float32) * sizes[slots]).astype(np.int64)
        places = np.minimum(places, starts + sizes[slots] - 1)  # a float32 just below 1 may round up
        flat = order[places] + images * np.arange(count)[:, None]
        counts = np.bincount(flat.ravel(), minlength=count * images).reshape(count, images)
        yield counts.astype(np.float32) * scale

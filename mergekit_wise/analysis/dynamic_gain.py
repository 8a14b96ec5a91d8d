"""What an alpha for each image achieves in a sweep: each image is answered at the nearest alpha of the sweep.

The answers at all alphas are there, so nothing is computed by a model again. Knows answers and numbers only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.dynamic import UNDECIDED, fit_mixture, mixing_lambda, nearest
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.paired import RESAMPLES, evidence
from mergekit_wise.analysis.point import DEFAULT, Point

CLUSTERS = 3
"""As many mixtures as the paper uses."""

ENDS = (0.0, 1.0)
"""The alphas whose entropies decide."""


@dataclass(frozen=True, slots=True)
class ColumnGain:
    """An alpha for each image in one column: a data set, or an average.

    Attributes:
        column: its name.
        value: what it achieves.
        best: the best single alpha in this column; of equally good ones the nearest to 0.5.
        over_best: how much more than this alpha, with the paired 95 % interval. The alpha was chosen on the same
            images, in favour of the alpha.
        over_default: how much more than 0.5; None if 0.5 was not swept.
    """

    column: str
    value: float
    best: float
    over_best: Estimate
    over_default: Estimate | None


@dataclass(frozen=True, slots=True)
class DynamicGain:
    """What an alpha for each image achieves.

    Attributes:
        clusters: how many mixtures a data set's images share; None if every image has its own alpha.
        columns: the reference, each shift, and the averages.
        served: for each data set, by the column's name, the swept alphas that were used and for how many images.
    """

    clusters: int | None
    columns: tuple[ColumnGain, ...]
    served: Mapping[str, Mapping[float, int]]


def dynamic_gains(
    answers: Sequence[Answers],
    alphas: Sequence[float],
    names: Mapping[str, str],
    *,
    clusters: int = CLUSTERS,
    resamples: int = RESAMPLES,
) -> tuple[DynamicGain, DynamicGain]:
    """The gain of `clusters` mixtures for each data set, fitted to its images, and of an alpha for every image.

    Args:
        answers: of the mixtures on the reference, if there is one, and on each shift; companions are left out.
        alphas: of the mixtures, with 0 and 1 among them.
        names: what columns are called, by the data sets' names.
        clusters: K.
        resamples: for the intervals, as in `paired.evidence`.

    Raises:
        ValueError: alpha 0 or 1 is missing, or there is no answer.
    """
    if not set(ENDS) <= set(alphas):
        raise ValueError(f"expected alpha 0 and 1 among {list(alphas)}")
    chosen = [each for each in answers if each.role != "companion"]
    rows = [[own_alphas(each, alphas, count) for count in (clusters, None)] for each in chosen]
    found = evidence([_with_own(*each) for each in zip(chosen, rows, strict=True)], names, resamples=resamples)
    default = alphas.index(DEFAULT) if DEFAULT in alphas else None
    gains = []
    for place, count in enumerate((clusters, None)):
        own = len(alphas) + place
        columns = []
        for number, column in enumerate(found.columns):
            values = found.values[number]
            best = max(range(len(alphas)), key=lambda at: (values[at], Point.of_alpha(alphas[at]).nearness))
            over_default = None if default is None else found.difference(number, own, default)
            over_best = found.difference(number, own, best)
            columns.append(ColumnGain(column, float(values[own]), alphas[best], over_best, over_default))
        served = {names[each.dataset]: _counts(row[place], alphas) for each, row in zip(chosen, rows, strict=True)}
        gains.append(DynamicGain(count, tuple(columns), served))
    return gains[0], gains[1]


def own_alphas(answers: Answers, alphas: Sequence[float], clusters: int | None) -> NDArray[np.int64]:
    """Which of the mixtures each image gets, int64 [N]: the one nearest to its cluster's alpha, or to its own lambda.

    An image without probabilities at alpha 0 or 1 is in no cluster and gets the one nearest to 0.5.
    """
    entropy = answers.number("entropy").astype(np.float64)
    zeroshot, finetuned = (entropy[alphas.index(end)] for end in ENDS)
    lambdas = mixing_lambda(zeroshot, finetuned)
    known = np.isfinite(zeroshot) & np.isfinite(finetuned)
    if clusters is not None and known.any():
        mixture = fit_mixture(lambdas[known], clusters)
        lambdas = np.full(len(lambdas), UNDECIDED)
        lambdas[known] = mixture.alphas[mixture.members]
    return nearest(lambdas, alphas)


def _with_own(answers: Answers, rows: Sequence[NDArray[np.int64]]) -> Answers:
    """The answers with those of more mixtures, each of which takes every image's from the row of its own."""
    images = np.arange(len(answers.labels))
    classes = [answers.classes[row, images] for row in rows]
    numbers = [answers.numbers[row, :, images].T for row in rows]
    return replace(
        answers,
        classes=np.concatenate([answers.classes, np.array(classes, answers.classes.dtype)]),
        numbers=np.concatenate([answers.numbers, np.array(numbers, answers.numbers.dtype)]),
    )


def _counts(rows: NDArray[np.int64], alphas: Sequence[float]) -> dict[float, int]:
    used, counts = np.unique(rows, return_counts=True)
    found = {alphas[row]: count for row, count in zip(used.tolist(), counts.tolist(), strict=True)}
    return dict(sorted(found.items()))

"""What would be chosen without labels, how sure that is, and how far off such choices were where labels are known.

A back-test treats labelled shifts as if they had no labels, and looks at the labels afterwards. Knows numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mergekit_wise.analysis.decision import best_of
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.paired import Evidence
from mergekit_wise.analysis.point import Point
from mergekit_wise.analysis.unlabelled import ESTIMATED, METHODS, Estimated

ALWAYS = "always 0.5"
"""What each method has to beat."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How one method would have done on labelled shifts without looking at their labels.

    Attributes:
        method: of `METHODS`, or `ALWAYS`.
        error: the mean absolute error of its estimates over shifts and mixtures; None where it estimates no accuracy.
        per_shift: what choosing for each shift by itself loses against the best mixture there, the mean over shifts.
        together: what choosing one mixture for all shifts loses against the best one, in the average of the shifts.
        point: the mixture that it chooses for all shifts.
        each: for each shift, the mean absolute error, the mixture chosen and its loss.
    """

    method: str
    error: float | None
    per_shift: float
    together: float
    point: Point
    each: tuple[tuple[float | None, Point, float], ...]


@dataclass(frozen=True, slots=True)
class Certainty:
    """The mixture that ATC would choose, and what it is estimated to achieve more than the default.

    Attributes:
        point: the mixture with the highest mean of the estimates; of equal ones the nearest to 0.5.
        value: that mean.
        gain: the difference from 0.5, with a 95 % interval that holds for all mixtures at once; None without 0.5.
    """

    point: Point
    value: float
    gain: Estimate | None


def certainty(evidence: Evidence, points: Sequence[Point]) -> Certainty:
    """What ATC would choose for all unlabelled sets together, by their column of `estimates`, and how sure that is."""
    column = evidence.columns.index(ESTIMATED) if ESTIMATED in evidence.columns else 1
    values = evidence.values[column]
    best = best_of(values, points)
    default = next((number for number, point in enumerate(points) if point.is_default), None)
    gain = None
    if default is not None:
        others = [number for number in range(len(points)) if number != default]
        gain = evidence.contrasts(column, default).simultaneous(best, others)
    return Certainty(points[best], float(values[best]), gain)


def back_test(shifts: Sequence[Estimated], points: Sequence[Point]) -> tuple[Trial, ...]:
    """How each method would have done on shifts whose `accuracy` is known, and `ALWAYS` if 0.5 was measured."""
    trials = [_trial(method, shifts, points) for method in METHODS]
    default = next((number for number, point in enumerate(points) if point.is_default), None)
    if default is not None:
        trials.append(_trial(ALWAYS, shifts, points, default))
    return tuple(trials)


def _trial(method: str, shifts: Sequence[Estimated], points: Sequence[Point], fixed: int | None = None) -> Trial:
    accuracies = np.array([each.accuracy for each in shifts], np.float64)
    found = accuracies if fixed is not None else np.array([each.by_method()[method] for each in shifts])
    estimating = method in METHODS[:3]
    each = []
    for values, accuracy in zip(found, accuracies, strict=True):
        chosen = best_of(values, points) if fixed is None else fixed
        error = float(np.abs(values - accuracy).mean()) if estimating else None
        each.append((error, points[chosen], float(accuracy.max() - accuracy[chosen])))
    average = accuracies.mean(axis=0)
    chosen = best_of(found.mean(axis=0), points) if fixed is None else fixed
    return Trial(
        method,
        float(np.abs(found - accuracies).mean()) if estimating else None,
        float(np.mean([loss for _, _, loss in each])),
        float(average.max() - average[chosen]),
        points[chosen],
        tuple(each),
    )

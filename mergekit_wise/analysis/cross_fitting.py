"""Corrects for choosing a mixture on the images that it is reported on. Knows answers and numbers only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.decision import Comparison, decide
from mergekit_wise.analysis.goal import Goal
from mergekit_wise.analysis.paired import evidence, halved
from mergekit_wise.analysis.point import Point

CROSS_FITS = ("halves", "leave-one-out", "off")
SPLITS = 5
RESAMPLES = 200
"""Fewer than for the choice itself, because every split chooses twice."""

Compare = Callable[[Sequence[Answers], int], Comparison]
"""Answers on the reference, if there is one, and on the shifts, and a number of resamples -> what mixtures achieve."""

GoalOf = Callable[[Sequence[Answers]], Goal]
"""Answers -> what is maximised in their comparison."""


@dataclass(frozen=True, slots=True)
class CrossFit:
    """The number that decided, as it was chosen and reported on the same images, and on images that did not choose.

    Attributes:
        how: "halves" or "leave-one-out".
        naive: of the recommended mixture on all images.
        corrected: of mixtures that were chosen on other images.
        points: what was chosen in each part.
        sentence: both numbers in words.
    """

    how: str
    naive: float
    corrected: float
    points: tuple[Point, ...]
    sentence: str = ""


def compared(answers: Sequence[Answers], resamples: int, *, error: str = "") -> Comparison:
    """What mixtures achieve in each data set's own metric, or by an `error`; see `paired.evidence`."""
    return evidence(answers, {each.dataset: each.dataset for each in answers}, resamples=resamples, error=error)


def by_halves(
    answers: Sequence[Answers], points: Sequence[Point], goal: Goal, recommended: Point, compare: Compare = compared
) -> CrossFit | None:
    """Choose on half of the images of each data set and report on the other half, both ways, in `SPLITS` splits.

    What is reported is the goal's number over all images, each answered by the mixture that the other half chose; the
    mean of all splits. None if a data set has too few images to be halved.
    """
    found: list[float] = []
    chosen: list[Point] = []
    for seed in range(SPLITS):
        halves = halved(answers, seed)
        if any(half.all() or not half.any() for half in halves):
            return None
        first, second = (
            decide(compare(_part(answers, halves, side), RESAMPLES), points, goal).point for side in (True, False)
        )
        answered = [
            _joined(each, half, points.index(second), points.index(first))
            for each, half in zip(answers, halves, strict=True)
        ]
        found.append(float(compare(answered, 0).values[goal.column, 0]))
        chosen += [first, second]
    naive = float(compare(answers, 0).values[goal.column, points.index(recommended)])
    corrected, write = float(np.mean(found)), goal.scale.value
    sentence = f"{write(naive)} on the images that chose it; {write(corrected)} corrected for that (cross-fitted)"
    return CrossFit("halves", naive, corrected, tuple(chosen), sentence)


def leaving_one_out(
    answers: Sequence[Answers],
    points: Sequence[Point],
    goal_of: GoalOf,
    recommended: Point,
    compare: Compare = compared,
) -> CrossFit | None:
    """Choose on all shifts but one, with the reference if there is one, and report on that one, for each shift.

    Both numbers are averages of the shifts. None with fewer than two shifts.
    """
    shifts = [each for each in answers if each.role == "shift"]
    if len(shifts) < 2:
        return None
    chosen, naive, corrected = [], [], []
    for shift in shifts:
        others = [each for each in answers if each is not shift]
        point = decide(compare(others, RESAMPLES), points, goal_of(others)).point
        achieved = compare([shift], 0).values[0]
        chosen.append(point)
        naive.append(float(achieved[points.index(recommended)]))
        corrected.append(float(achieved[points.index(point)]))
    write = goal_of(answers).scale.value
    first, second = float(np.mean(naive)), float(np.mean(corrected))
    sentence = f"{write(first)} on the shifts that chose it; {write(second)} where each is left out of the choice"
    return CrossFit("leave-one-out", first, second, tuple(chosen), sentence)


def _part(answers: Sequence[Answers], halves: Sequence[NDArray[np.bool_]], side: bool) -> list[Answers]:
    return [each.of_images(np.flatnonzero(half == side)) for each, half in zip(answers, halves, strict=True)]


def _joined(answers: Answers, half: NDArray[np.bool_], first: int, second: int) -> Answers:
    """The answers of mixture `first` to the images in the half, and of `second` to the rest, as of one model."""
    classes = np.where(half, answers.classes[first], answers.classes[second])
    numbers = np.where(half, answers.numbers[first], answers.numbers[second])
    return replace(answers, classes=classes[None], numbers=numbers[None])

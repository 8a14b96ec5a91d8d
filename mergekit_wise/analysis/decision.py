"""Decides which mixture to use: the best one if it is shown to be better than the default. Knows numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.candidate import Candidate, columns
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.goal import PERCENT, Floor, Goal
from mergekit_wise.analysis.point import DEFAULT, Point
from mergekit_wise.wording import listed

FINEST = 0.01
"""Mixtures no farther apart than this are never refined: a step in the curve would be bisected forever."""


class Differences(Protocol):
    """How all mixtures differ from one of them in a column; see `paired.Contrasts`."""

    def pointwise(self, mixture: int) -> Estimate:
        """The difference of one mixture with its 95 % interval, for a comparison that was planned."""

    def simultaneous(self, mixture: int, among: Sequence[int]) -> Estimate:
        """The same with an interval that holds for all mixtures in `among` at once."""

    def lower(self, mixture: int, among: Sequence[int]) -> float:
        """The lower bound of the difference that holds for all mixtures in `among` at once, one-sided, at 95 %."""


class Comparison(Protocol):
    """What mixtures achieve in columns, and how they differ: `paired.Evidence`, or `Intervals` without answers."""

    @property
    def values(self) -> NDArray[np.float64]:
        """What V mixtures achieve in C columns, float64 [C, V]; higher is better."""

    @property
    def is_paired(self) -> bool:
        """Whether mixtures are compared image by image."""

    def estimate(self, column: int, mixture: int) -> Estimate:
        """What a mixture achieves, with its 95 % interval."""

    def contrasts(self, column: int, base: int) -> Differences:
        """The differences of all mixtures from `base` in a column."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The mixture to use, why it was chosen, and a warning for its user or ""."""

    point: Point
    reason: str
    warning: str = ""

    @property
    def alpha(self) -> float | None:
        """The mixing coefficient if it alone was swept."""
        return self.point.alpha


def decide(evidence: Comparison, points: Sequence[Point], goal: Goal) -> Recommendation:
    """The mixture to use: the best one if it is shown to be better than the default, 0.5; else the default.

    The best one has the highest value in the goal's column, among the mixtures that keep the goal's floor; of equally
    good ones it is the nearest to 0.5. It is shown to be better if the lower bound of its difference from the default
    is above 0: a one-sided 95 % bound that holds for all mixtures at once, because the best of them was picked. If the
    default was not evaluated, or does not keep the floor, the best one is taken. The reason says what is significant.

    Args:
        evidence: higher is better.
        points: of the evidence's mixtures, in their order.
        goal: what is maximised.
    """
    eligible = keeping(evidence, goal.floor)
    best = _best(evidence.values[goal.column], points, eligible)
    default = next((number for number in eligible if points[number].is_default), None)
    scale = goal.scale
    what = f"{scale.best} {goal.name} ({scale.value(float(evidence.values[goal.column, best]))}{goal.note})"
    if default is None:
        return Recommendation(points[best], f"{what}; {_why_not(evidence, points, goal)}")
    if best == default:
        return Recommendation(points[best], what + _rivals(evidence, points, goal, best, eligible))
    contrasts, others = evidence.contrasts(goal.column, default), [each for each in eligible if each != default]
    lower, difference = contrasts.lower(best, others), contrasts.simultaneous(best, others)
    more = f"{scale.difference(difference.value)} {scale.above} {DEFAULT}"
    interval = f"paired 95 % interval {scale.interval(difference)}"
    if lower > 0:
        if not evidence.is_paired:
            return Recommendation(points[best], f"{what}, significantly {scale.above} {DEFAULT}")
        bounds = interval if difference.low > 0 else f"at least {scale.difference(lower)} with 95 % confidence"
        return Recommendation(points[best], f"{what}, {more} ({bounds})")
    lead = f"{points[best]} has the {what}, but"
    if not evidence.is_paired:
        return Recommendation(points[default], f"{lead} it is not significantly {scale.above} {DEFAULT}")
    if not difference.value:
        return Recommendation(points[default], f"{lead} it is not {scale.above} {DEFAULT}")
    return Recommendation(points[default], f"{lead} its {more} are not significant ({interval})")


def refine(evidence: Comparison, points: Sequence[Point], goal: Goal) -> tuple[Point, ...]:
    """Mixtures to evaluate next: halfway between the best one and each neighbour that differs significantly from it.

    Repeated calls with the added results approach the maximum and end with (): the best one does not differ
    significantly from its neighbours, or they are within ``FINEST``. For sweeps of one parameter; of several, nothing
    is added.
    """
    if len(points[0].names) != 1:
        return ()
    best = _best(evidence.values[goal.column], points, keeping(evidence, goal.floor))
    contrasts = evidence.contrasts(goal.column, best)
    name = points[0].names[0]
    found = []
    for first, second in pairwise(sorted(range(len(points)), key=lambda number: points[number])):
        low, high = (points[number].numbers[0] for number in (first, second))
        if best in (first, second) and high - low > FINEST:
            difference = contrasts.pointwise(second if first == best else first)
            if excludes_zero(difference):
                found.append(Point(((name, round((low + high) / 2, 9)),)))
    return tuple(found)


def keeping(evidence: Comparison, floor: Floor | None) -> list[int]:
    """The mixtures that may be chosen: shown to lose less than the floor's margin, by one-sided simultaneous bounds."""
    mixtures = range(evidence.values.shape[1])
    if floor is None:
        return list(mixtures)
    contrasts, others = evidence.contrasts(floor.column, floor.base), [m for m in mixtures if m != floor.base]
    return [m for m in mixtures if m == floor.base or contrasts.lower(m, others) > -floor.margin]


def excludes_zero(difference: Estimate) -> bool:
    """Whether a difference is significant: zero lies outside of its interval."""
    return difference.low > 0 or difference.high < 0


def best_of(values: NDArray[np.float64], points: Sequence[Point]) -> int:
    """The mixture with the highest of the values [V]; of equally good ones the nearest to 0.5."""
    return _best(values, points, range(len(points)))


def _best(values: NDArray[np.float64], points: Sequence[Point], among: Sequence[int]) -> int:
    # Rounded, because sums of the same shares in another order are the same average.
    return max(among, key=lambda number: (round(float(values[number]), 12), points[number].nearness))


def _why_not(evidence: Comparison, points: Sequence[Point], goal: Goal) -> str:
    """Why the default is not among the mixtures that may be chosen."""
    default = next((number for number, point in enumerate(points) if point.is_default), None)
    if default is None or goal.floor is None:
        return f"{DEFAULT} was not evaluated"
    others = [number for number in range(len(points)) if number != goal.floor.base]
    difference = evidence.contrasts(goal.floor.column, goal.floor.base).simultaneous(default, others)
    kind = "paired 95 % interval" if evidence.is_paired else "interval"
    by = f"{PERCENT.difference(difference.value)} against alpha 1 there"
    return f"{DEFAULT} is not one of them: {by} ({kind} {PERCENT.interval(difference)})"


def _rivals(evidence: Comparison, points: Sequence[Point], goal: Goal, best: int, eligible: Sequence[int]) -> str:
    """Which mixtures the best one is not significantly better than."""
    others = [number for number in eligible if number != best]
    if not others:
        return ""
    contrasts, above = evidence.contrasts(goal.column, best), goal.scale.above
    close = [number for number in others if not excludes_zero(contrasts.simultaneous(number, others))]
    if not close:
        return f", significantly {above} every other"
    single = len(points[0].numbers) == 1
    names = listed([f"{points[each].numbers[0]:g}" if single else f"({points[each]})" for each in close], 4)
    return f"; not significantly {above} {names}"


@dataclass(frozen=True, slots=True)
class Intervals:
    """What mixtures achieve where the answers for each image are not known: they differ if intervals do not overlap.

    That is far too strict, because the errors of mixtures on the same images have much in common.

    Attributes:
        estimates: by column and mixture.
    """

    estimates: tuple[tuple[Estimate, ...], ...]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> "Intervals":
        """Of candidates that can be compared."""
        by_mixture = [tuple(estimate for _, estimate in columns(candidate)) for candidate in candidates]
        return cls(tuple(zip(*by_mixture, strict=True)))

    @property
    def values(self) -> NDArray[np.float64]:
        """What V mixtures achieve in C columns, float64 [C, V]."""
        return np.array([[each.value for each in column] for column in self.estimates])

    @property
    def is_paired(self) -> bool:
        """Whether mixtures are compared image by image: no."""
        return False

    def estimate(self, column: int, mixture: int) -> Estimate:
        """What a mixture achieves, with its 95 % interval."""
        return self.estimates[column][mixture]

    def contrasts(self, column: int, base: int) -> "_Gaps":
        """The gaps between the intervals of all mixtures and that of `base`."""
        return _Gaps(self.estimates[column], base)


@dataclass(frozen=True, slots=True)
class _Gaps:
    """Differences whose interval excludes zero if two intervals do not overlap. Too wide for any number of mixtures."""

    estimates: tuple[Estimate, ...]
    base: int

    def pointwise(self, mixture: int) -> Estimate:
        """The difference of one mixture, from bound to opposite bound."""
        if mixture == self.base:
            return Estimate(0.0, 0.0, 0.0)
        one, other = self.estimates[mixture], self.estimates[self.base]
        return Estimate(one.value - other.value, one.low - other.high, one.high - other.low)

    def simultaneous(self, mixture: int, among: Sequence[int]) -> Estimate:
        """The same, whatever is in `among`."""
        return self.pointwise(mixture)

    def lower(self, mixture: int, among: Sequence[int]) -> float:
        """Its lower bound."""
        return self.pointwise(mixture).low

"""A measured number with its 95 % interval, and sums of such. Knows neither what was measured nor why."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isnan

from mergekit_wise.analysis.intervals import clopper_pearson

Counts = tuple[int, int]
"""Correct, total."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_counts(cls, counts: Counts) -> "Estimate":
        """A share with its Clopper-Pearson interval. Raises ValueError where the counts are no share."""
        ends = clopper_pearson(*counts)
        return cls(counts[0] / counts[1], *ends)

    def above(self, other: "Estimate") -> bool:
        """Whether the whole interval lies above the other's."""
        return self.low > other.high

    def differs(self, other: "Estimate") -> bool:
        """Whether the intervals have nothing in common."""
        return self.above(other) or other.above(self)


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))
"""What was not measured. It differs from nothing, and nothing is above it."""


def combined(terms: Sequence[tuple[float, Estimate]]) -> Estimate:
    """The weighted sum of measurements on different images, with an interval made of theirs.

    The distances from the value to the ends add up as independent errors do, each side for itself (MOVER: Zou and
    Donner, Statistics in Medicine 27, 2008). For normal intervals that is the normal interval of the sum. Where the
    measurements share images the interval is too wide as a rule, because errors that are shared cancel in differences.

    Args:
        terms: factors, of any sign, and what they multiply.
    """
    value = sum(factor * each.value for factor, each in terms)
    if isnan(value):
        return UNKNOWN
    ends = [sorted((factor * each.low, factor * each.high)) for factor, each in terms]
    middles = [factor * each.value for factor, each in terms]
    below = hypot(*(middle - low for middle, (low, _) in zip(middles, ends, strict=True)))
    above = hypot(*(high - middle for middle, (_, high) in zip(middles, ends, strict=True)))
    return Estimate(value, value - below, value + above)

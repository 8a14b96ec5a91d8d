"""A measured number with its 95 % interval, and weighted sums of such numbers.

Knows neither what was measured nor why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isnan

Counts = tuple[int, int]
"""Correct, total."""


def clopper_pearson(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, `correct` of `total`, at confidence `level` (Clopper and Pearson, 1934).

    The paper gives every accuracy with this interval at 95 %. Raises ValueError unless 0 <= correct <= total and
    total > 0.
    """
    from scipy.special import betaincinv  # takes 0.1 s to import, which a plain merge should not pay

    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total}: no share")
    tail = (1 - level) / 2
    low = betaincinv(correct, total - correct + 1, tail) if correct else 0.0
    high = betaincinv(correct + 1, total - correct, 1 - tail) if correct < total else 1.0
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the bounds of its 95 % interval; the bounds are NaN if the interval is unknown."""

    value: float
    low: float
    high: float

    @classmethod
    def of_counts(cls, counts: Counts) -> "Estimate":
        """A share with its Clopper-Pearson interval. Raises ValueError if the counts are not a share."""
        return cls(counts[0] / counts[1], *clopper_pearson(*counts))

    def above(self, other: "Estimate") -> bool:
        """Whether the whole interval lies above the other's."""
        return self.low > other.high

    def differs(self, other: "Estimate") -> bool:
        """Whether the two intervals do not overlap."""
        return self.above(other) or other.above(self)


UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))
"""A number that was not measured. It differs from no other, and none is above it."""


def combined(terms: Sequence[tuple[float, Estimate]], same_images: Sequence[str] = ()) -> Estimate:
    """The weighted sum of measurements, with an interval derived from theirs.

    The distances from the value to the bounds add up as independent errors do, each side by itself (MOVER: Zou and
    Donner, Statistics in Medicine 27, 2008). For normal intervals this is the normal interval of the sum.

    Measurements on the same images are not independent: an image that is hard stays hard when it is corrupted. How
    much their errors have in common cannot be seen from counts, so the distances of such terms are added up, which is
    right if the errors are the same and too wide otherwise: the standard error of a sum is at most the sum of the
    standard errors.

    Args:
        terms: factors of any sign, each with the estimate that it multiplies.
        same_images: for each term, a key that terms on the same images share; empty for images of its own. By default
            no images are shared.
    """
    value = sum(factor * each.value for factor, each in terms)
    if isnan(value):
        return UNKNOWN
    below: dict[object, float] = {}
    above: dict[object, float] = {}
    for number, ((factor, each), key) in enumerate(zip(terms, same_images or ("",) * len(terms), strict=True)):
        low, high = sorted((factor * each.low, factor * each.high))
        group = key or number
        below[group] = below.get(group, 0.0) + factor * each.value - low
        above[group] = above.get(group, 0.0) + high - factor * each.value
    return Estimate(value, value - hypot(*below.values()), value + hypot(*above.values()))

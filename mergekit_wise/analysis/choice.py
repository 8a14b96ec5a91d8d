"""Which alpha to use, and why. Knows accuracies, not where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.intervals import clopper_pearson

DEFAULT = 0.5
"""What the paper recommends where nothing else is known (section 4)."""

Counts = tuple[int, int]
"""Correct, total."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one alpha achieves: counts on the reference, and on each shift."""

    alpha: float
    reference: Counts
    shifts: tuple[Counts, ...]

    @property
    def reference_accuracy(self) -> float:
        """Share of the reference that is right."""
        return self.reference[0] / self.reference[1]

    @property
    def shift_accuracy(self) -> float:
        """Mean of the accuracies on the shifts, each shift counting the same, as in the paper's tables."""
        return sum(correct / total for correct, total in self.shifts) / len(self.shifts)

    @property
    def average(self) -> float:
        """Mean of the accuracy on the reference and the average on the shifts (the paper's "avg. ref., shifts")."""
        return (self.reference_accuracy + self.shift_accuracy) / 2

    @property
    def pooled_shifts(self) -> Counts:
        """Counts over all shifts together, for intervals."""
        return sum(c for c, _ in self.shifts), sum(t for _, t in self.shifts)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An alpha and the sentence that says why."""

    alpha: float
    reason: str


def recommend(candidates: Sequence[Candidate]) -> Recommendation:
    """The alpha to use: 0.5 if the best one is not better beyond the intervals, else the best.

    Best means the highest mean of the accuracy on the reference and the average on the shifts. The best one is
    better beyond the intervals if its 95 % interval on the reference, or on the pooled shifts, lies above 0.5's.
    """
    best = max(candidates, key=lambda c: (c.average, -abs(c.alpha - DEFAULT)))
    default = next((c for c in candidates if c.alpha == DEFAULT), None)
    average = f"the best mean of reference and shifts ({best.average:.1%})"
    if default is None:
        return Recommendation(best.alpha, f"{average}; {DEFAULT} was not among the alphas")
    if best is default:
        return Recommendation(DEFAULT, average)
    if _above(best.reference, default.reference) or _above(best.pooled_shifts, default.pooled_shifts):
        return Recommendation(best.alpha, f"{average}, above {DEFAULT} beyond the 95 % intervals")
    return Recommendation(DEFAULT, f"nothing separates it from {best.alpha}, the best mean, beyond the 95 % intervals")


def _above(a: Counts, b: Counts) -> bool:
    return clopper_pearson(*a)[0] > clopper_pearson(*b)[1]

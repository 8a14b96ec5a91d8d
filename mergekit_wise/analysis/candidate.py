"""What one alpha achieves, and the columns of the paper's tables. Knows numbers, not where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.estimate import UNKNOWN, Counts, Estimate, combined
from mergekit_wise.errors import ResultsError

DEFAULT = 0.5
"""What the paper recommends where nothing else is known (section 4)."""

UNMEASURED: Counts = (0, 0)
"""Counts of a reference that there is none of."""

SHIFTS = "average of shifts"
BOTH = "average of both"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one alpha achieves: counts on the reference, and on each shift.

    Attributes:
        alpha: the mixing coefficient.
        reference: counts of top-1; ``UNMEASURED`` where there is no reference.
        shifts: counts of each shift; may be empty.
        names: of the reference, then of the shifts; made up where there are none.
        estimates: in the same order, the numbers that count in place of the share of the counts, as where a data
            set reports macro F1. None, or no tuple at all: the counts' share and its Clopper-Pearson interval.
    """

    alpha: float
    reference: Counts
    shifts: tuple[Counts, ...]
    names: tuple[str, ...] = ()
    estimates: tuple[Estimate | None, ...] = ()

    @property
    def has_reference(self) -> bool:
        """Whether the reference was measured."""
        return self.reference[1] > 0

    @property
    def measured(self) -> tuple[Estimate, ...]:
        """The reference, ``UNKNOWN`` where there is none, then each shift."""
        given = self.estimates or (None,) * (1 + len(self.shifts))
        pairs = zip((self.reference, *self.shifts), given, strict=True)
        return tuple(_estimate(counts, estimate) for counts, estimate in pairs)

    @property
    def shift_average(self) -> Estimate:
        """Mean over the shifts, each counting the same, as in the paper's tables; ``UNKNOWN`` without shifts."""
        each = self.measured[1:]
        return combined([(1 / len(each), one) for one in each]) if each else UNKNOWN

    @property
    def both(self) -> Estimate:
        """Mean of the reference and the average of the shifts (the paper's "avg. ref., shifts").

        Where one of the two was not measured, the other; ``UNKNOWN`` without either.
        """
        if not self.has_reference:
            return self.shift_average
        reference = self.measured[0]
        return combined([(0.5, reference), (0.5, self.shift_average)]) if self.shifts else reference

    @property
    def reference_accuracy(self) -> float:
        """What the reference reports; NaN where there is none."""
        return self.measured[0].value

    @property
    def shift_accuracy(self) -> float:
        """Mean of what the shifts report; NaN without shifts."""
        return self.shift_average.value

    @property
    def average(self) -> float:
        """Mean of the reference and the average of the shifts, or whichever there is; NaN without either."""
        return self.both.value

    @property
    def pooled_shifts(self) -> Counts:
        """Counts over all shifts together."""
        return sum(c for c, _ in self.shifts), sum(t for _, t in self.shifts)


def columns(candidate: Candidate) -> tuple[tuple[str, Estimate], ...]:
    """Name and number of each column of the paper's tables: the reference, each shift, and the two averages.

    A column that there is nothing to fill with is left out.
    """
    names = candidate.names or ("reference", *(f"shift {i}" for i in range(1, 1 + len(candidate.shifts))))
    found = list(zip(names, candidate.measured, strict=True))[0 if candidate.has_reference else 1 :]
    if candidate.shifts:
        found.append((SHIFTS, candidate.shift_average))
    if candidate.shifts and candidate.has_reference:
        found.append((BOTH, candidate.both))
    return tuple(found)


def require_comparable(candidates: Sequence[Candidate]) -> None:
    """Raise ResultsError unless something was measured, the same at every alpha, and each alpha stands once."""
    if not candidates:
        raise ResultsError("There is no alpha to choose from. Evaluate some first: wise sweep.")
    first, seen = candidates[0], set[float]()
    for candidate in candidates:
        if candidate.alpha in seen:
            raise ResultsError(f"alpha {candidate.alpha:g} stands twice. Take the records of one run, or select them.")
        seen.add(candidate.alpha)
        if _images(candidate) != _images(first) or candidate.names != first.names:
            raise ResultsError(
                f"alpha {first.alpha:g} was measured on {_told(first)}, alpha {candidate.alpha:g} on "
                f"{_told(candidate)}; only the same can be compared. Evaluate what is missing, or select records."
            )
    if not any(_images(first)):
        raise ResultsError("Neither a reference nor a shift was measured. Evaluate a suite: wise sweep --suite NAME.")


def nearest_to_default(alpha: float) -> tuple[float, float]:
    """A key by which the largest is the alpha nearest to 0.5, and of two as near the smaller one."""
    return -round(abs(alpha - DEFAULT), 9), -alpha


def _estimate(counts: Counts, given: Estimate | None) -> Estimate:
    if counts[1] == 0:
        return UNKNOWN
    return Estimate.of_counts(counts) if given is None else given


def _images(candidate: Candidate) -> tuple[int, ...]:
    return tuple(total for _, total in (candidate.reference, *candidate.shifts))


def _told(candidate: Candidate) -> str:
    names = candidate.names or ("reference", *("shift",) * len(candidate.shifts))
    pairs = zip(names, _images(candidate), strict=True)
    return ", ".join(f"{name} ({images} images)" for name, images in pairs if images) or "nothing"

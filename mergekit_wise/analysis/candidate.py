"""What one mixture achieves, and the columns of the paper's tables. Knows numbers, not where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from mergekit_wise.analysis.estimate import UNKNOWN, Counts, Estimate, combined
from mergekit_wise.analysis.point import Point
from mergekit_wise.errors import ResultsError

UNMEASURED: Counts = (0, 0)
"""Counts of a reference that was not measured."""

SHIFTS = "average of shifts"
BOTH = "average of both"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one mixture achieves: counts on the reference, and on each shift.

    Attributes:
        point: where it lies in the sweep.
        reference: counts of top-1; ``UNMEASURED`` without a reference.
        shifts: counts of each shift; may be empty.
        names: of the reference, then of the shifts; generic names by default.
        estimates: in the same order, the numbers to use in place of the share of the counts, e.g. if a data set
            reports macro F1. None, or an empty tuple: the counts' share and its Clopper-Pearson interval.
        same_images: in the same order, keys that are equal for data sets made of the same images; empty for images of
            their own. An empty tuple: no images are shared.
        averages: the average of the shifts, and that of both, where their intervals are known from resampling the
            images; an empty tuple: they are combined from those of the parts.
    """

    point: Point
    reference: Counts
    shifts: tuple[Counts, ...]
    names: tuple[str, ...] = ()
    estimates: tuple[Estimate | None, ...] = ()
    same_images: tuple[str, ...] = ()
    averages: tuple[Estimate, ...] = ()

    def __repr__(self) -> str:
        named = (("reference", self.reference_accuracy), ("shifts", self.shift_accuracy))
        found = [f"{name} {100 * value:.1f} %" for name, value in named if not isnan(value)]
        return f"<Candidate: {', '.join((str(self.point), *found))}>"

    @property
    def alpha(self) -> float | None:
        """The mixing coefficient if it alone was swept."""
        return self.point.alpha

    @property
    def has_reference(self) -> bool:
        """Whether the reference was measured."""
        return self.reference[1] > 0

    @property
    def measured(self) -> tuple[Estimate, ...]:
        """The reference, ``UNKNOWN`` if it was not measured, then each shift."""
        given = self.estimates or (None,) * (1 + len(self.shifts))
        pairs = zip((self.reference, *self.shifts), given, strict=True)
        return tuple(_estimate(counts, estimate) for counts, estimate in pairs)

    @property
    def shift_average(self) -> Estimate:
        """Mean over the shifts, each with the same weight, as in the paper's tables; ``UNKNOWN`` without shifts."""
        if self.averages:
            return self.averages[0]
        each = self.measured[1:]
        return combined([(1 / len(each), one) for one in each], self.same_images[1:]) if each else UNKNOWN

    @property
    def both(self) -> Estimate:
        """Mean of the reference and the average of the shifts (the paper's "avg. ref., shifts").

        If one of the two was not measured, the other; ``UNKNOWN`` without either.
        """
        if self.averages:
            return self.averages[1]
        if not self.has_reference:
            return self.shift_average
        reference, *each = self.measured
        terms = [(0.5, reference), *((0.5 / len(each), one) for one in each)]
        return combined(terms, self.same_images) if each else reference

    @property
    def reference_accuracy(self) -> float:
        """The number that the reference reports; NaN if it was not measured."""
        return self.measured[0].value

    @property
    def shift_accuracy(self) -> float:
        """Mean of the numbers that the shifts report; NaN without shifts."""
        return self.shift_average.value

    @property
    def average(self) -> float:
        """Mean of the reference and the average of the shifts, or whichever was measured; NaN without either."""
        return self.both.value


def columns(candidate: Candidate) -> tuple[tuple[str, Estimate], ...]:
    """Name and number of each column of the paper's tables: the reference, each shift, and the two averages.

    Columns of what was not measured are left out, and the average of a single shift, which is the shift.
    """
    found = list(zip(_names(candidate), candidate.measured, strict=True))[0 if candidate.has_reference else 1 :]
    if len(candidate.shifts) > 1:
        found.append((SHIFTS, candidate.shift_average))
    if candidate.shifts and candidate.has_reference:
        found.append((BOTH, candidate.both))
    return tuple(found)


def require_comparable(candidates: Sequence[Candidate]) -> None:
    """Raise ResultsError unless every mixture occurs once, and all on the same, non-empty sets of images."""
    if not candidates:
        raise ResultsError("There is no alpha to choose from. Evaluate some first: wise sweep.")
    first, seen = candidates[0], set[Point]()
    for candidate in candidates:
        if candidate.point in seen:
            raise ResultsError(f"{candidate.point} occurs twice. Take the records of one run, or select them.")
        seen.add(candidate.point)
        if _images(candidate) != _images(first) or candidate.names != first.names:
            raise ResultsError(
                f"{first.point} was measured on {_described(first)}, {candidate.point} on "
                f"{_described(candidate)}; only results on the same images can be compared. Evaluate the missing data "
                "sets, or select records."
            )
    if not any(_images(first)):
        raise ResultsError("Neither a reference nor a shift was measured. Evaluate a suite: wise sweep --suite NAME.")


def _estimate(counts: Counts, given: Estimate | None) -> Estimate:
    if counts[1] == 0:
        return UNKNOWN
    return Estimate.of_counts(counts) if given is None else given


def _names(candidate: Candidate) -> tuple[str, ...]:
    return candidate.names or ("reference", *(f"shift {i}" for i in range(1, 1 + len(candidate.shifts))))


def _images(candidate: Candidate) -> tuple[int, ...]:
    return tuple(total for _, total in (candidate.reference, *candidate.shifts))


def _described(candidate: Candidate) -> str:
    pairs = zip(_names(candidate), _images(candidate), strict=True)
    return ", ".join(f"{name} ({images} images)" for name, images in pairs if images) or "nothing"

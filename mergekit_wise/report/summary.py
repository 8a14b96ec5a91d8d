"""What analysis says of a curve: the recommended alpha, what 0.5 costs, and how the way between the ends goes.

Knows measurements as candidates of `analysis`; decides nothing itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis import (
    UNMEASURED,
    Candidate,
    Connectivity,
    Loss,
    Recommendation,
    connectivity,
    losses,
    recommend,
)
from mergekit_wise.errors import ResultsError
from mergekit_wise.report.comparison import BOTH, SHIFTS, Column, Comparison, Curve
from mergekit_wise.report.measurement import Measurement

ENDS = (0.0, 1.0)
"""Zero-shot, fine-tuned."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one curve; None or empty where its records do not allow it.

    Attributes:
        recommendation: the alpha to use, and why.
        losses: the paper's Table 3, by the names of columns.
        connectivity: observations 1 and 2, by the names of data sets that report top-1.
    """

    recommendation: Recommendation | None
    losses: dict[str, Loss]
    connectivity: dict[str, Connectivity]


def judge(comparison: Comparison, curve: Curve) -> Verdict:
    """What analysis says of the alphas at which everything that averages are over was measured."""
    counted = _counted(comparison)
    candidates = [
        _candidate(alpha, [curve.rows[alpha, column.name] for column in counted], comparison)
        for alpha in curve.mixtures
        if all((alpha, column.name) in curve.rows for column in counted)
    ]
    recommendation, found = None, {}
    if len(candidates) > 1:
        try:
            recommendation = recommend(candidates)
            names = [*(column.name for column in counted), SHIFTS, BOTH]
            found = dict(zip(_present(names, candidates[0]), losses(candidates), strict=True))
        except ResultsError:
            pass  # measured on different images, which `remarks` says
    return Verdict(recommendation, found, _connectivities(comparison, curve))


def _counted(comparison: Comparison) -> list[Column]:
    """The reference and the shifts that averages are over."""
    reference = comparison.reference
    shifts = [column for column in comparison.columns if column.role == "shift" and column.name in comparison.averaged]
    return [*([reference] if reference else []), *shifts]


def _candidate(alpha: float, rows: Sequence[Measurement], comparison: Comparison) -> Candidate:
    counts = [(row.correct, row.total) for row in rows]
    results = [row.result for row in rows]
    names = [row.dataset for row in rows]
    if comparison.reference is None:
        return Candidate(alpha, UNMEASURED, tuple(counts), ("", *names), (None, *results))
    return Candidate(alpha, counts[0], tuple(counts[1:]), tuple(names), tuple(results))


def _present(names: Sequence[str], candidate: Candidate) -> list[str]:
    """The columns that `losses` has for candidates such as this one."""
    absent = set() if candidate.shifts else {SHIFTS, BOTH}
    if not candidate.has_reference:
        absent.add(BOTH)
    return [name for name in names if name not in absent]


def _connectivities(comparison: Comparison, curve: Curve) -> dict[str, Connectivity]:
    found = {}
    for column in comparison.columns:
        rows = [row for (_, name), row in curve.rows.items() if name == column.name]
        points = [(row.alpha, row.correct, row.total) for row in rows if row.alpha is not None]
        if not points or any(row.metric != "top-1" for row in rows):
            continue
        try:
            found[column.name] = connectivity(points)
        except ResultsError:
            continue  # an end is missing, or images differ, which `remarks` says
    return found

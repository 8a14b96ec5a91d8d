"""Which line a plot of shifts against the reference shows, and on which images it takes the reference.

Knows comparisons and lines; knows nothing of plots.
"""

import math
from collections.abc import Iterable

from mergekit_wise.analysis import BASELINES, IMAGENET_BASELINES, Line
from mergekit_wise.analysis.robustness import AverageBaseline
from mergekit_wise.datasets.subsets import companion_name
from mergekit_wise.report.comparison import SHIFTS, Column, Comparison
from mergekit_wise.report.scale import Scale, expit, logit
from mergekit_wise.report.summary import baseline_of

STEPS = 24
"""How many straight pieces a line is drawn in."""


def drawn_against(comparison: Comparison, reference: Column, shift: Column) -> tuple[Column, Line | None]:
    """The column that a shift, or the average of the shifts, is drawn against, and the baseline; None if none is known.

    That is the reference, unless the published line predicts from the reference's images of the shift's classes, and
    all models were measured on these: then a model's distance from the line is its effective robustness.
    """
    if shift.name == SHIFTS:
        parts = [_over_reference(comparison, column) for column in comparison.columns if column.name in shift.parts]
        lines = tuple(line for line in parts if line is not None)
        return reference, AverageBaseline(lines) if len(lines) == len(shift.parts) else None
    if shift.name not in comparison.baselines and _over_reference(comparison, shift) is not None:
        companion = next((each for each in comparison.columns if each.name == companion_name(shift.name)), None)
        if companion is not None and _covers(comparison, companion, shift):
            return companion, BASELINES[shift.name]
    return reference, _over_reference(comparison, shift)


def baseline_points(line: Line, x: Scale) -> tuple[tuple[float, float], ...]:
    """Points of a line over the whole of a logit axis, with both sides of every jump."""
    low, high = logit(x.low), logit(x.high)
    shares = {expit(low + (high - low) * step / STEPS) for step in range(STEPS + 1)}
    for bend in line.bends:
        if x.low < bend < x.high:
            shares |= {bend, math.nextafter(bend, 1.0)}
    return tuple((share, float(line.expected(share))) for share in sorted(shares))


def _over_reference(comparison: Comparison, shift: Column) -> Line | None:
    """The line that predicts a shift from the reference itself: the user's own, else the published one."""
    found = baseline_of(comparison, shift)
    if found is not None:
        return found
    reference = comparison.reference
    of_accuracy = all(each is not None and each.metric in ("", "top-1") for each in (reference, shift))
    is_imagenet = reference is not None and reference.name == "imagenet"
    return IMAGENET_BASELINES.get(shift.name) if is_imagenet and of_accuracy else None


def _covers(comparison: Comparison, companion: Column, shift: Column) -> bool:
    """Whether every mixture that was measured on the shift was also measured on the companion."""
    return all(
        (at, companion.name) in curve.rows for curve in comparison.curves for at in _measured(curve.rows, shift.name)
    )


def _measured(places: Iterable[tuple[object, str]], name: str) -> list[object]:
    return [at for at, dataset in places if dataset == name]

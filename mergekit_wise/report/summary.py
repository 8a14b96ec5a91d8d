"""What analysis says of the curves of a comparison: the recommended alpha, the loss at 0.5, connectivity, robustness.

The choice of a sweep is taken from the results file. Where there is none, turns measurements into the candidates and
counts of `analysis`; decides nothing itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mergekit_wise.analysis import (
    BASELINES,
    Candidate,
    Connectivity,
    Estimate,
    Line,
    Loss,
    Measurements,
    Point,
    Recommendation,
    choose,
    effective_robustness,
)
from mergekit_wise.analysis.connectivity import connectivity
from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.datasets.subsets import companion_name
from mergekit_wise.errors import ResultsError
from mergekit_wise.report.choices import losses_of
from mergekit_wise.report.comparison import BOTH, SHIFTS, Column, Comparison, Curve
from mergekit_wise.results import At, as_candidate


@dataclass(frozen=True, slots=True)
class Summary:
    """A comparison and, for each of its curves in order, what analysis says of it.

    Attributes:
        recommendations: the alpha to use and why; None if the records do not allow a choice.
        losses: the paper's Table 3, by the names of columns.
        connectivities: observations 1 and 2, by the names of the data sets, each in its own metric.
    """

    comparison: Comparison
    recommendations: tuple[Recommendation | None, ...]
    losses: tuple[Mapping[str, Loss], ...]
    connectivities: tuple[Mapping[str, Connectivity], ...]


def summarize(comparison: Comparison) -> Summary:
    """What analysis says of the alphas that were measured on everything that averages are over."""
    chosen = [_choice(comparison, curve) for curve in comparison.curves]
    return Summary(
        comparison,
        tuple(recommendation for recommendation, _ in chosen),
        tuple(lost for _, lost in chosen),
        tuple(_connectivities(comparison, curve) for curve in comparison.curves),
    )


def baseline_of(comparison: Comparison, shift: Column) -> Line | None:
    """The line that predicts a shift from the comparison's reference: the user's own, else the published one.

    Lines are for top-1 accuracies: there is none where one of the two reports another metric.

    For ImageNet-R, ImageNet-A and ObjectNet the published line predicts from ImageNet restricted to their classes,
    which is not the reference; see `robustness`.
    """
    if not _report_accuracy(comparison, shift):
        return None
    if shift.name in comparison.baselines:
        return comparison.baselines[shift.name]
    line = BASELINES.get(shift.name)
    same = comparison.reference is not None and comparison.reference.name == "imagenet"
    return line if same and line is not None and line.reference == "ImageNet" else None


@dataclass(frozen=True, slots=True)
class Robustness:
    """Effective robustness of a model on a shift.

    Attributes:
        value: rho, with its 95 % interval.
        fitted: the range of accuracies on the reference that the line was fitted to.
        is_extrapolated: whether the model's own accuracy there lies outside of it.
    """

    value: Estimate
    fitted: tuple[float, float]
    is_extrapolated: bool


def robustness(comparison: Comparison, curve: Curve, alpha: At, shift: Column) -> Robustness | None:
    """Effective robustness of a model on a shift; None if no line is known or something was not measured.

    Relative to the reference, or to its images of the shift's classes if the line predicts from those.
    """
    reference = comparison.reference
    if reference is None:
        return None
    line, name = baseline_of(comparison, shift), reference.name
    if line is None and reference.name == "imagenet" and _report_accuracy(comparison, shift):
        line, name = BASELINES.get(shift.name), companion_name(shift.name)
    shifted, unshifted = curve.rows.get((alpha, shift.name)), curve.rows.get((alpha, name))
    if line is None or shifted is None or unshifted is None:
        return None
    if shifted.correct is None or unshifted.correct is None:  # another program wrote them: lines are for counts
        return None
    low, high = line.fitted
    return Robustness(
        effective_robustness((shifted.correct, shifted.total), (unshifted.correct, unshifted.total), line),
        line.fitted,
        not low <= unshifted.correct / unshifted.total <= high,
    )


def _report_accuracy(comparison: Comparison, shift: Column) -> bool:
    """Whether the number that the reference and a shift report is top-1 accuracy."""
    return all(column is None or column.metric in ("", "top-1") for column in (comparison.reference, shift))


def _choice(comparison: Comparison, curve: Curve) -> tuple[Recommendation | None, dict[str, Loss]]:
    if curve.choice is not None:
        written = curve.choice.choice.recommendation
        # As its measurements are: 1/3 is the alpha 0.333333333 here.
        values = tuple(
            (name, round(value, 9 if curve.swept == (ALPHA,) else 12)) for name, value in written.point.values
        )
        return replace(written, point=Point(values)), losses_of(comparison, curve.choice)
    reference = comparison.reference
    shifts = [c for c in comparison.columns if c.role == "shift" and c.name in comparison.averaged]
    names = [column.name for column in ([reference] if reference else []) + shifts]
    candidates = [
        as_candidate(
            point,
            names,
            [curve.rows[alpha, name] for name in names],
            with_reference=reference is not None,
        )
        for alpha in curve.alphas
        if (point := curve.point(alpha)) is not None and all((alpha, name) in curve.rows for name in names)
    ]
    if len(candidates) < 2:
        return None, {}
    try:
        chosen = choose(Measurements.of(candidates, {}))
        return chosen.recommendation, dict(zip(_columns(names, candidates[0]), chosen.losses, strict=True))
    except ResultsError:
        return None, {}  # measured on different images, which `warnings` reports


def _columns(names: list[str], candidate: Candidate) -> list[str]:
    """The names of the columns that `losses` has for candidates like this one."""
    averages = [SHIFTS] if len(candidate.shifts) > 1 else []
    return [*names, *averages, *([BOTH] if candidate.shifts and candidate.has_reference else [])]


def _connectivities(comparison: Comparison, curve: Curve) -> dict[str, Connectivity]:
    found: dict[str, Connectivity] = {}
    if not curve.has_ends:
        return found
    for column in comparison.columns:
        rows = [row for (_, name), row in curve.rows.items() if name == column.name]
        points = [(row.alpha, row.result, row.total) for row in rows if row.alpha is not None]
        try:
            found[column.name] = connectivity(points)
        except ResultsError:
            continue  # an alpha is missing, or images differ, which `warnings` reports
    return found

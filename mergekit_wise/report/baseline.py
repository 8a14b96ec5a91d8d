"""Which line says what accuracy under a shift is to be expected, where there is one.

Knows columns of a comparison, and the lines of `analysis`.
"""

from collections.abc import Mapping

from mergekit_wise.analysis import BASELINES, Baseline, Estimate, effective_robustness, fit_baseline, parse_points
from mergekit_wise.analysis.baseline_table import OWN_REFERENCE
from mergekit_wise.datasets.subsets import companion_name
from mergekit_wise.report.comparison import Column, Comparison, Curve


def fitted(text: str, where: str, axis: str = "logit") -> dict[str, Baseline]:
    """The lines through a user's own models, by shift; see `analysis.parse_points` for the table.

    A shift with a reference of its own is left out: accuracies on that are in no record. Raises ResultsError.
    """
    points = parse_points(text, where)
    own = {word for word in text.splitlines()[0].replace('"', "").split(",") if word.strip().startswith(OWN_REFERENCE)}
    return {
        shift: fit_baseline(found, axis, shift=shift, reference="the reference", source=where)  # type: ignore[arg-type]
        for shift, found in points.items()
        if f"{OWN_REFERENCE}{shift}" not in {word.strip() for word in own}
    }


def baseline(lines: Mapping[str, Baseline], reference: Column, shift: Column) -> Baseline | None:
    """The line of a shift: the user's own of `lines`, else the fitted one; None where none is known.

    For ImageNet-R, ImageNet-A and ObjectNet the fitted line starts from ImageNet restricted to their classes, which no
    axis shows; see `robustness`.
    """
    if shift.name in lines:
        return lines[shift.name]
    line = BASELINES.get(shift.name)
    return line if line is not None and line.reference == "ImageNet" and reference.name == "imagenet" else None


def robustness(comparison: Comparison, curve: Curve, alpha: float | None, shift: Column) -> Estimate | None:
    """Effective robustness of a model on a shift, None where no line is known or something was not measured.

    Against the reference, or its images of the shift's classes where the line starts from those.
    """
    reference = comparison.reference
    if reference is None:
        return None
    line, axis = baseline(comparison.lines, reference, shift), reference.name
    if line is None and reference.name == "imagenet":
        line, axis = BASELINES.get(shift.name), companion_name(shift.name)
    if line is None:
        return None
    rows = [curve.rows.get((alpha, name)) for name in (shift.name, axis)]
    match rows:
        case [first, second] if first is not None and second is not None:
            return effective_robustness((first.correct, first.total), (second.correct, second.total), line)
    return None

"""Numbers in, numbers out: intervals, averages, the choice of alpha, the paper's analysis.

Knows no torch, no files, no terminal.
"""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.analysis.answers import NUMBERS, Answers, stacked
    from mergekit_wise.analysis.baseline import Accuracies, fit_baseline, fit_baselines, parse_points
    from mergekit_wise.analysis.calibration import CALIBRATION, Bins, Calibration, calibrations
    from mergekit_wise.analysis.candidate import UNMEASURED, Candidate, columns
    from mergekit_wise.analysis.choice import WARNING, Choice, Difference, Loss, Measurements, choose
    from mergekit_wise.analysis.connectivity import Connectivity
    from mergekit_wise.analysis.cross_fitting import CROSS_FITS, CrossFit
    from mergekit_wise.analysis.decision import Recommendation
    from mergekit_wise.analysis.disagreement import LogitDisagreement, output_ensemble
    from mergekit_wise.analysis.estimate import Estimate, clopper_pearson
    from mergekit_wise.analysis.goal import PREFERENCES, Preference, as_preference
    from mergekit_wise.analysis.point import Point
    from mergekit_wise.analysis.robustness import (
        BASELINES,
        IMAGENET_BASELINES,
        AverageBaseline,
        Axis,
        Baseline,
        Line,
        TwoPieces,
        effective_robustness,
        from_axis,
        to_axis,
    )

__all__ = [
    "BASELINES",
    "CALIBRATION",
    "CROSS_FITS",
    "IMAGENET_BASELINES",
    "NUMBERS",
    "PREFERENCES",
    "UNMEASURED",
    "WARNING",
    "Accuracies",
    "Answers",
    "AverageBaseline",
    "Axis",
    "Baseline",
    "Bins",
    "Calibration",
    "Candidate",
    "Choice",
    "Connectivity",
    "CrossFit",
    "Difference",
    "Estimate",
    "Line",
    "LogitDisagreement",
    "Loss",
    "Measurements",
    "Point",
    "Preference",
    "Recommendation",
    "TwoPieces",
    "as_preference",
    "calibrations",
    "choose",
    "clopper_pearson",
    "columns",
    "effective_robustness",
    "fit_baseline",
    "fit_baselines",
    "from_axis",
    "output_ensemble",
    "parse_points",
    "stacked",
    "to_axis",
]

_NAMES = {
    "answers": ("NUMBERS", "Answers", "stacked"),
    "baseline": ("Accuracies", "fit_baseline", "fit_baselines", "parse_points"),
    "calibration": ("CALIBRATION", "Bins", "Calibration", "calibrations"),
    "candidate": ("UNMEASURED", "Candidate", "columns"),
    "choice": ("WARNING", "Choice", "Difference", "Loss", "Measurements", "choose"),
    "connectivity": ("Connectivity",),
    "cross_fitting": ("CROSS_FITS", "CrossFit"),
    "decision": ("Recommendation",),
    "disagreement": ("LogitDisagreement", "output_ensemble"),
    "estimate": ("Estimate", "clopper_pearson"),
    "goal": ("PREFERENCES", "Preference", "as_preference"),
    "point": ("Point",),
    "robustness": (
        "BASELINES",
        "IMAGENET_BASELINES",
        "AverageBaseline",
        "Axis",
        "Baseline",
        "Line",
        "TwoPieces",
        "effective_robustness",
        "from_axis",
        "to_axis",
    ),
}

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)

"""Numbers in, numbers out: intervals, averages, the choice of alpha, the paper's analysis.

Knows no torch, no files, no terminal.
"""

from mergekit_wise.analysis.baseline_fit import fit_baseline
from mergekit_wise.analysis.baseline_table import Point, parse_points
from mergekit_wise.analysis.baselines import BASELINES, IMAGENET_A
from mergekit_wise.analysis.candidate import UNMEASURED, Candidate, columns
from mergekit_wise.analysis.choice import (
    PREFERENCES,
    Preference,
    Recommendation,
    as_preference,
    recommend,
    refine,
    select_on,
)
from mergekit_wise.analysis.connectivity import Connectivity, connectivity
from mergekit_wise.analysis.disagreement import LogitDisagreement, disagreement, output_ensemble
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.intervals import clopper_pearson
from mergekit_wise.analysis.losses import Loss, losses
from mergekit_wise.analysis.robustness import Baseline, TwoPieces, effective_robustness, from_axis, to_axis

__all__ = [
    "BASELINES",
    "IMAGENET_A",
    "PREFERENCES",
    "UNMEASURED",
    "Baseline",
    "Candidate",
    "Connectivity",
    "Estimate",
    "LogitDisagreement",
    "Loss",
    "Point",
    "Preference",
    "Recommendation",
    "TwoPieces",
    "as_preference",
    "clopper_pearson",
    "columns",
    "connectivity",
    "disagreement",
    "effective_robustness",
    "fit_baseline",
    "from_axis",
    "losses",
    "output_ensemble",
    "parse_points",
    "recommend",
    "refine",
    "select_on",
    "to_axis",
]

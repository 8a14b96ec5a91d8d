"""Two checkpoints and an alpha become one checkpoint. Knows no file format and no architecture."""

from mergekit_wise.merging.align import align
from mergekit_wise.merging.alphas import check_alpha, parse_alphas
from mergekit_wise.merging.backends import open_backend
from mergekit_wise.merging.fisher import Fishers, open_fishers
from mergekit_wise.merging.mixing import Mixer
from mergekit_wise.merging.movement import Movement, movements
from mergekit_wise.merging.outcomes import Outcome, relative_distance
from mergekit_wise.merging.pair import Differences, Pair, differences, match
from mergekit_wise.merging.plan import Step, make_plan
from mergekit_wise.merging.provenance import KEY, describe, read_origin, read_rules
from mergekit_wise.merging.rules import Rules
from mergekit_wise.merging.stream import Sink, stream

__all__ = [
    "KEY",
    "Differences",
    "Fishers",
    "Mixer",
    "Movement",
    "Outcome",
    "Pair",
    "Rules",
    "Sink",
    "Step",
    "align",
    "check_alpha",
    "describe",
    "differences",
    "make_plan",
    "match",
    "movements",
    "open_backend",
    "open_fishers",
    "parse_alphas",
    "read_origin",
    "read_rules",
    "relative_distance",
    "stream",
]

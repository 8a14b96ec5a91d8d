"""Two checkpoints and an alpha become one checkpoint. Knows no file format and no architecture."""

from mergekit_wise.merging.backends import Backend, open_backend
from mergekit_wise.merging.fisher import Fishers, open_fishers
from mergekit_wise.merging.mixing import Mixer, blocks
from mergekit_wise.merging.movement import Movement, movements
from mergekit_wise.merging.pair import Differences, Pair, align, differences, unresolved
from mergekit_wise.merging.plan import TensorPlan, make_plan
from mergekit_wise.merging.provenance import KEY, describe, described_by, read_origin, read_rules
from mergekit_wise.merging.rules import Rules, check_alpha, parse_alphas
from mergekit_wise.merging.stream import Outcome, Sink, relative_distance, stream

__all__ = [
    "KEY",
    "Backend",
    "Differences",
    "Fishers",
    "Mixer",
    "Movement",
    "Outcome",
    "Pair",
    "Rules",
    "Sink",
    "TensorPlan",
    "align",
    "blocks",
    "check_alpha",
    "describe",
    "described_by",
    "differences",
    "make_plan",
    "movements",
    "open_backend",
    "open_fishers",
    "parse_alphas",
    "read_origin",
    "read_rules",
    "relative_distance",
    "stream",
    "unresolved",
]

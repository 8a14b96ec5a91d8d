"""Two checkpoints and an alpha become one checkpoint. Knows no file format and no architecture."""

from mergekit_wise.merging.alphas import check_alpha, parse_alphas
from mergekit_wise.merging.devices import open_engine
from mergekit_wise.merging.fates import Outcome, relative_distance
from mergekit_wise.merging.movement import Movement, movements
from mergekit_wise.merging.pair import Differences, Pair, align, differences, match
from mergekit_wise.merging.plan import make_plan
from mergekit_wise.merging.provenance import describe, read_origin
from mergekit_wise.merging.stream import mix_whole, stream

__all__ = [
    "Differences",
    "Movement",
    "Outcome",
    "Pair",
    "align",
    "check_alpha",
    "describe",
    "differences",
    "make_plan",
    "match",
    "mix_whole",
    "movements",
    "open_engine",
    "parse_alphas",
    "read_origin",
    "relative_distance",
    "stream",
]

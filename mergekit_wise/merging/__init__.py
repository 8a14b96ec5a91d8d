"""Two checkpoints and an alpha become one checkpoint. Knows no file format and no architecture."""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.merging.backends import Backend, open_backend
    from mergekit_wise.merging.fisher import Fishers, open_fishers
    from mergekit_wise.merging.mixing import Mixer, blocks
    from mergekit_wise.merging.movement import Movement, each_movement, movements
    from mergekit_wise.merging.naming import AS_ZEROSHOT, Naming, parse_naming, read_naming, renamed
    from mergekit_wise.merging.pair import Differences, Pair, align, differences, unresolved
    from mergekit_wise.merging.plan import TensorPlan, make_plan, unmixable
    from mergekit_wise.merging.provenance import KEY, describe, described_by, read_origin, read_rules
    from mergekit_wise.merging.rules import Rules, check_alpha, parse_alphas
    from mergekit_wise.merging.stream import Outcome, Sink, relative_distance

__all__ = [
    "AS_ZEROSHOT",
    "KEY",
    "Backend",
    "Differences",
    "Fishers",
    "Mixer",
    "Movement",
    "Naming",
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
    "each_movement",
    "make_plan",
    "movements",
    "open_backend",
    "open_fishers",
    "parse_alphas",
    "parse_naming",
    "read_naming",
    "read_origin",
    "read_rules",
    "relative_distance",
    "renamed",
    "unmixable",
    "unresolved",
]

_NAMES = {
    "backends": ("Backend", "open_backend"),
    "fisher": ("Fishers", "open_fishers"),
    "mixing": ("Mixer", "blocks"),
    "movement": ("Movement", "each_movement", "movements"),
    "naming": ("AS_ZEROSHOT", "Naming", "parse_naming", "read_naming", "renamed"),
    "pair": ("Differences", "Pair", "align", "differences", "unresolved"),
    "plan": ("TensorPlan", "make_plan", "unmixable"),
    "provenance": ("KEY", "describe", "described_by", "read_origin", "read_rules"),
    "rules": ("Rules", "check_alpha", "parse_alphas"),
    "stream": ("Outcome", "Sink", "relative_distance"),
}

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)

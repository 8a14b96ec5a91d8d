"""Compare two checkpoints: names, shapes, and how far each layer moved."""

from dataclasses import dataclass

from mergekit_wise.merging import Differences, Movement, differences, movements
from mergekit_wise.models.pairing import open_pair
from mergekit_wise.option_types import takes
from mergekit_wise.options import DiffOptions


@dataclass(frozen=True, slots=True)
class DiffReport:
    """Differences in names and shapes (`missing`), and the `movements` of shared tensors, the largest first."""

    missing: Differences
    movements: tuple[Movement, ...]
    notes: tuple[str, ...]


@takes(DiffOptions)
def diff(options: DiffOptions) -> DiffReport:
    """Compare two checkpoints tensor by tensor, in float64. Raises CheckpointError."""
    with open_pair(options.zeroshot, options.finetuned, mmap=options.mmap) as (a, b):
        moved = movements(a, b, options.progress)
        return DiffReport(differences(a, b), moved, (*a.notes, *b.notes))

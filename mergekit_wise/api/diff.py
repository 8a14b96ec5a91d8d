"""In what two checkpoints differ: names, shapes, and how far each layer moved."""

from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.checkpoint import closing
from mergekit_wise.merging import Differences, Movement, align, differences, movements
from mergekit_wise.models.source import open_source
from mergekit_wise.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class DiffReport:
    """`missing` in names and shapes, and the `movements` of the tensors that both hold, the largest first."""

    missing: Differences
    movements: tuple[Movement, ...]
    notes: tuple[str, ...]


def diff(zeroshot: str | Path, finetuned: str | Path, *, progress: Progress = silent) -> DiffReport:
    """Compare two checkpoints tensor by tensor, in float64. Raises CheckpointError."""
    first, second = open_source(zeroshot), open_source(finetuned)
    with closing(first, second):
        a, b = align(first, second)
        moved = movements(a, b, progress)
        return DiffReport(differences(a, b), moved, (*a.notes, *b.notes))

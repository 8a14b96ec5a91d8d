"""Compare two checkpoints: what they are, names, shapes, and how far each layer moved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.merging import Differences, Movement, differences, each_movement, parse_naming
from mergekit_wise.merging.movement import order_of
from mergekit_wise.models.mismatch import explain_mismatch
from mergekit_wise.models.pairing import open_pair
from mergekit_wise.models.summary import Summary, summarize
from mergekit_wise.option_types import takes
from mergekit_wise.options import DiffOptions
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.table import Table


@dataclass(frozen=True, slots=True, repr=False)
class DiffReport(ResultObject):
    """What two checkpoints have in common.

    Attributes:
        missing: differences in names and shapes.
        movements: of the shared tensors, the largest first.
        notes: how the files were read.
        zeroshot, finetuned: what the two files hold.
        refusal: why the two cannot be merged as they are, and what to do; None if they can be.
    """

    missing: Differences
    movements: tuple[Movement, ...]
    notes: tuple[str, ...]
    zeroshot: Summary
    finetuned: Summary
    refusal: str | None

    def _summary(self) -> str:
        moved = sum(not each.equal for each in self.movements)
        alone = sum(map(len, (self.missing.only_zeroshot, self.missing.only_finetuned, self.missing.shapes)))
        differ = f", {plural(alone, 'tensor')} in one file only or of different shape" if alone else ""
        return f"{moved:,} of {plural(len(self.movements), 'shared tensor')} moved{differ}"

    def _entry(self) -> Mapping[str, Any]:
        fields = ("name", "relative", "cosine", "equal", "by_class")
        moved = [{name: getattr(movement, name) for name in fields} for movement in self.movements]
        missing = {name: getattr(self.missing, name) for name in ("only_zeroshot", "only_finetuned", "shapes")}
        return {"missing": missing, "movements": moved, "notes": self.notes}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        fields = ("name", "relative", "cosine", "equal", "rounded")
        return ({name: getattr(movement, name) for name in fields} for movement in self.movements)

    def _tables(self) -> "Sequence[Table]":
        from mergekit_wise.report.tensor_tables import movement_table

        moved = [each for each in self.movements if not each.equal]
        return [replace(movement_table(moved), title=f"How far the weights moved, largest first ({self._summary()})")]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A report that is known before any tensor is read, and the movements, each computed when it is asked for."""

    report: DiffReport
    movements: Iterator[Movement]


@takes(DiffOptions)
def diff(options: DiffOptions) -> DiffReport:
    """Compare two checkpoints tensor by tensor, in float64. Raises CheckpointError."""
    with comparing(options) as found:
        moved = tuple(sorted(found.movements, key=lambda movement: -order_of(movement)))
        known = found.report
        return DiffReport(known.missing, moved, known.notes, known.zeroshot, known.finetuned, known.refusal)


@contextmanager
def comparing(options: DiffOptions) -> Iterator[Comparison]:
    """What `diff` does, tensor by tensor in the order of the first file. Raises CheckpointError."""
    naming = parse_naming(options.like, options.rename)
    with open_pair(options.zeroshot, options.finetuned, naming, base=options.base, mmap=options.mmap) as (a, b, _):
        missing = differences(a, b)
        refusal = explain_mismatch(a, b, missing, command="diff") if missing else None
        report = DiffReport(missing, (), (*a.notes, *b.notes), summarize(a), summarize(b), refusal)
        yield Comparison(report, each_movement(a, b, options.progress))

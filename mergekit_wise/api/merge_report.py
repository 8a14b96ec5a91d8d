"""What a merge did, or would do, and how that looks in Python."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.merging import Outcome, TensorPlan
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.merging.soup_geometry import Geometry
    from mergekit_wise.report.table import Table


@dataclass(frozen=True, slots=True, repr=False)
class MergeReport(ResultObject):
    """What `merge` did.

    Attributes:
        output: the file or folder that was written, or the index of several files; `size` bytes in all.
        alpha: the mixing coefficient.
        outcomes: what happened to each tensor.
        distance: relative change in fine-tuning, ||theta_1 - theta_0|| / ||theta_0|| over the mixed tensors; None if
            none was mixed.
        notes: what was changed, left out or decided on the way, one sentence each.
        seconds: how long it took, all outputs together.
        geometry: how the members of a soup lie around the zero-shot model; None if there is no soup.
    """

    output: Path
    alpha: float
    size: int
    outcomes: tuple[Outcome, ...]
    distance: float | None
    notes: tuple[str, ...]
    seconds: float
    geometry: "Geometry | None" = None

    def _summary(self) -> str:
        moved = "" if self.distance is None else f", relative change {self.distance:.3g}"
        return f"{self.output.name}, alpha {self.alpha:g}, {plural(len(self.outcomes), 'tensor')}{moved}"

    def _entry(self) -> Mapping[str, Any]:
        return {
            "output": self.output,
            "alpha": self.alpha,
            "bytes": self.size,
            "distance": self.distance,
            "seconds": self.seconds,
            "tensors": list(self._rows()),
            "notes": self.notes,
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return ({**_columns(outcome.plan), "source": outcome.source} for outcome in self.outcomes)

    def _tables(self) -> "Sequence[Table]":
        return [_table([outcome.plan for outcome in self.outcomes], f"{self.output}: what each tensor got")]


@dataclass(frozen=True, slots=True, repr=False)
class MergePreview(ResultObject):
    """What `merge` would do: the plan of every tensor, the size of the output, and the bytes free for it.

    `free` is None where the file system does not say.
    """

    steps: tuple[TensorPlan, ...]
    size: int
    files: int
    free: int | None
    notes: tuple[str, ...]

    def _summary(self) -> str:
        return f"{plural(len(self.steps), 'tensor')}, {self.size:,} bytes in {plural(self.files, 'file')}"

    def _entry(self) -> Mapping[str, Any]:
        sizes = {"bytes": self.size, "files": self.files, "free": self.free}
        return {**sizes, "tensors": list(self._rows()), "notes": self.notes}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return map(_columns, self.steps)

    def _tables(self) -> "Sequence[Table]":
        return [_table(self.steps, "What each tensor would get")]


def _columns(step: TensorPlan) -> dict[str, Any]:
    """The facts of a tensor and what was planned for it."""
    info = step.info
    alpha = step.alpha if step.action == "mix" else None
    facts = {"tensor": info.name, "dtype": info.dtype.torch, "shape": info.shape, "bytes": info.nbytes}
    return {**facts, "action": step.action, "alpha": alpha}


def _table(steps: Sequence[TensorPlan], title: str) -> "Table":
    from mergekit_wise.report.tensor_tables import plan_table  # what a plain merge does without

    return replace(plan_table(steps), title=title)

"""The tables of tensors that commands print: what they are, what a merge would make of them, how far they moved."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mergekit_wise.report.table import Table
from mergekit_wise.wording import fold

if TYPE_CHECKING:
    from mergekit_wise.checkpoint import TensorInfo
    from mergekit_wise.merging import Movement, TensorPlan

ACTIONS = {
    "mix": "alpha {:g}",
    "choose": "fine-tuned where they differ",
    "zeroshot": "zero-shot",
    "finetuned": "fine-tuned",
}

TENSOR_COLUMNS = ("Tensor", "dtype", "Shape", "Bytes")
PLAN_COLUMNS = ("Tensor", "dtype", "Shape", "Values")
MOVEMENT_COLUMNS = ("Tensor", "|b - a| / |a|", "Cosine")


def tensor_rows(tensors: "Iterable[TensorInfo]") -> Iterator[tuple[str, ...]]:
    """A row per tensor: name, dtype, shape, bytes."""
    return ((i.name, str(i.dtype), _shape(i.shape), str(i.nbytes)) for i in tensors)


def tensor_table(tensors: "Sequence[TensorInfo]") -> Table:
    """The same for people: repeated layers share a row with their number and the bytes of one of them."""
    known = {i.name: i for i in tensors}
    rows = []
    for line, names in fold(known, lambda name: (known[name].dtype, known[name].shape)):
        info = known[names[0]]
        rows.append((line, _times(names), str(info.dtype), _shape(info.shape), f"{info.nbytes:,}"))
    return _without_empty((TENSOR_COLUMNS[0], "", *TENSOR_COLUMNS[1:]), rows)


def plan_rows(steps: "Iterable[TensorPlan]") -> Iterator[tuple[str, ...]]:
    """A row per tensor of a planned merge: its dtype and shape, and where its values come from."""
    return ((s.info.name, str(s.info.dtype), _shape(s.info.shape), ACTIONS[s.action].format(s.alpha)) for s in steps)


def plan_table(steps: "Sequence[TensorPlan]") -> Table:
    """The same for people: repeated layers with the same values share a row."""
    rows_of = dict(zip((s.info.name for s in steps), plan_rows(steps), strict=True))
    rows = [
        (line, _times(names), *rows_of[names[0]][1:]) for line, names in fold(rows_of, lambda name: rows_of[name][1:])
    ]
    return _without_empty((PLAN_COLUMNS[0], "", *PLAN_COLUMNS[1:]), rows)


def movement_table(movements: "Sequence[Movement]") -> Table:
    """The relative change of tensors in fine-tuning, and the cosine between before and after, largest change first.

    Repeated layers share a row with the ranges of their numbers.
    """
    known = {m.name: m for m in movements}
    rows = []
    for line, names in fold(known, lambda name: known[name].relative is None):
        found = [known[name] for name in names]
        rows.append(
            (line, _times(names), _range(m.relative for m in found), _range(m.cosine for m in found)),
        )
    return _without_empty((MOVEMENT_COLUMNS[0], "", *MOVEMENT_COLUMNS[1:]), rows)


def _times(names: Sequence[str]) -> str:
    return f"x{len(names):,}" if len(names) > 1 else ""


def _without_empty(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table without the second column if no row has anything in it."""
    if any(row[1] for row in rows):
        return Table.of_texts(columns, rows)
    return Table.of_texts((columns[0], *columns[2:]), [(row[0], *row[2:]) for row in rows])


def _range(values: Iterable[float | None]) -> str:
    """The smallest and the largest of the known numbers, with three digits, because names need the room."""
    known = sorted(value for value in values if value is not None)
    if len(known) < 2:
        return _number(known[0] if known else None)
    first, last = f"{known[0]:.3g}", f"{known[-1]:.3g}"
    return first if first == last else f"{first}..{last}"


def class_table(head: "Movement") -> Table:
    """A row per class of a head: the cosine between its weights before and after."""
    rows = ((str(index), _number(cosine)) for index, cosine in enumerate(head.by_class))
    return Table.of_texts(("Class", "Cosine"), rows)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _number(value: float | None) -> str:
    """Four digits; empty for an unknown number."""
    return "" if value is None else f"{value:.4g}"

"""Models' accuracies as people write them down: a comma-separated table. Knows text, and opens no file."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite

from mergekit_wise.errors import ResultsError

OWN_REFERENCE = "reference:"

Row = tuple[int, list[str]]
"""Number of a line, and its cells."""


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracies of one model, in [0, 1]: on the reference, and under the shift."""

    name: str
    reference: float
    shift: float


def parse_points(text: str, where: str) -> Mapping[str, tuple[Point, ...]]:
    """The models of a comma-separated table, by shift.

    The first line has the names of the columns. The first column names the model, the second is its accuracy on the
    reference, each other one that under a shift, named as the data set is ("imagenet-v2"). A column
    "reference:imagenet-r" is the reference of that shift alone, for shifts that have part of the classes. An empty cell
    means that the model was not measured there. Accuracies are per cent if any of them is above 1, else shares; a table
    with references on both sides of 1 is taken for a mixture of the two and refused.

    Args:
        text: what the file holds.
        where: the file's name, for messages.

    Raises:
        ResultsError: no table of this kind; the message says which line and column.
    """
    header, *rows = _rows(text, where)
    _require_header(header, where)
    models, cells = [row[0] for _, row in rows], [_accuracies(line, row, header, where) for line, row in rows]
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise ResultsError(f"{where}: the model {twice} stands twice. Keep one line a model.")
    scale = _scale(models, cells, header, where)
    shifts = [name for name in header[1][2:] if not name.startswith(OWN_REFERENCE)]
    found = {}
    for shift in shifts:
        own = f"{OWN_REFERENCE}{shift}"
        axis = own if own in header[1] else header[1][1]
        measured = zip(models, cells, strict=True)
        found[shift] = tuple(
            Point(name, row[axis] / scale, row[shift] / scale) for name, row in measured if axis in row and shift in row
        )
    return found


def _rows(text: str, where: str) -> list[Row]:
    reader = csv.reader(StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ResultsError(f"{where}: line {reader.line_num} is no comma-separated text: {error}.") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if len(rows) < 2:
        raise ResultsError(f"{where}: expected a line with the columns' names, then a line a model; found no models.")
    return rows


def _require_header(header: Row, where: str) -> None:
    names = header[1]
    shifts = [name for name in names[2:] if not name.startswith(OWN_REFERENCE)]
    lost = [name for name in names[2:] if name.startswith(OWN_REFERENCE) and name[len(OWN_REFERENCE) :] not in shifts]
    if not shifts or not all(names) or len(set(names)) < len(names) or lost:
        raise ResultsError(
            f"{where}: expected columns name, reference, then one a shift, each named and named once; "
            f"found {', '.join(name or '(empty)' for name in names)}."
        )


def _accuracies(line: int, row: list[str], header: Row, where: str) -> dict[str, float]:
    if len(row) != len(header[1]) or not row[0]:
        raise ResultsError(
            f"{where}: line {line} has {len(row)} cells, the first being {row[0] or 'empty'!r}; expected a name and "
            f"{len(header[1]) - 1} accuracies."
        )
    pairs = zip(header[1][1:], row[1:], strict=True)
    return {name: _accuracy(cell, f"{where}: line {line}, column {name}") for name, cell in pairs if cell}


def _scale(models: Sequence[str], cells: Sequence[Mapping[str, float]], header: Row, where: str) -> float:
    if not any(cell > 1 for row in cells for cell in row.values()):
        return 1.0
    reference = header[1][1]
    for name, row in zip(models, cells, strict=True):
        if 0 < row.get(reference, 100.0) <= 1:
            raise ResultsError(
                f"{where}: {name} has {row[reference]:g} in column {reference}, but other numbers are above 1: "
                "write all accuracies as shares, or all as per cent."
            )
    return 100.0


def _accuracy(cell: str, place: str) -> float:
    try:
        accuracy = float(cell)
    except ValueError:
        accuracy = float("nan")
    if not isfinite(accuracy) or not 0 <= accuracy <= 100:
        raise ResultsError(f"{place}: expected an accuracy, a share or per cent, found {cell!r}.")
    return accuracy

"""Baselines through a user's own models: a table of accuracies (CSV text) becomes one line per shift.

Knows text and numbers; opens no file.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite

import numpy as np

from mergekit_wise.analysis.robustness import Axis, Baseline, to_axis
from mergekit_wise.errors import ResultsError

OWN_REFERENCE = "reference:"
"""Prefix of a column with the reference of one shift alone."""

MIN_MODELS = 3
"""Models needed for a line: any two points lie on one."""

IMAGES = 10_000
"""An accuracy closer to 0 or 1 than half an image of so many is moved to that distance, so that it has a logit."""


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Accuracies of one model, in [0, 1]: on the reference, and under the shift."""

    name: str
    reference: float
    shift: float


def fit_baseline(points: Sequence[Accuracies], axis: Axis = "logit", *, shift: str = "a shift") -> Baseline:
    """The least-squares line through `points` on the axis.

    Args:
        points: at least three models with at least two different accuracies on the reference.
        axis: logit (the paper) or probit (Taori et al., Miller et al.).
        shift: the shift's name, for messages.

    Raises:
        ResultsError: too few models, all of the same accuracy, or accuracies outside [0, 1].
    """
    wrong = [point for point in points if not (0 <= point.reference <= 1 and 0 <= point.shift <= 1)]
    if wrong:
        raise ResultsError(f"The baseline of {shift} needs accuracies from 0 to 1; {wrong[0].name} has others.")
    x = to_axis([point.reference for point in points], axis, IMAGES)
    if len(x) < MIN_MODELS or np.ptp(x) == 0:
        raise ResultsError(
            f"The baseline of {shift} needs at least {MIN_MODELS} models that do not all have the same accuracy on "
            f"the reference; found {len(x)}. Add models to the table."
        )
    y = to_axis([point.shift for point in points], axis, IMAGES)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    known = [point.reference for point in points]
    return Baseline(slope, float(y.mean() - slope * x.mean()), axis, fitted=(min(known), max(known)))


def fit_baselines(text: str, where: str, axis: Axis) -> dict[str, Baseline]:
    """The lines through the models of a table, by shift. Arguments and errors are those of the two functions below."""
    return {shift: fit_baseline(points, axis, shift=shift) for shift, points in parse_points(text, where).items()}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the table: its number in the file, and its cells."""

    number: int
    cells: list[str]


def parse_points(text: str, where: str) -> Mapping[str, tuple[Accuracies, ...]]:
    """The models of a comma-separated table, by shift.

    The first line names the columns. The first column names the model, the second is its accuracy on the reference,
    and each other one is its accuracy under a shift, named like the data set ("imagenet-v2"). An empty cell means that
    the model was not measured there. Accuracies are percentages if any of them is above 1, else shares; a table with
    references on both sides of 1 probably mixes the two and is refused.

    A column "reference:imagenet-r" is the reference of that shift alone, for shifts that cover part of the classes.
    Such a shift is left out: no record holds accuracies on its reference.

    Args:
        text: the content of the file.
        where: the file's name, for messages.

    Raises:
        ResultsError: the text is not such a table; the message gives the line and the column.
    """
    header, *lines = _lines(text, where)
    columns = header.cells
    _require_header(columns, where)
    models = [line.cells[0] for line in lines]
    rows = [_accuracies(line, columns, where) for line in lines]
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise ResultsError(f"{where}: the model {twice} has two lines. Keep one line per model.")
    scale = _scale(models, rows, columns[1], where)
    reference, shifts = columns[1], [name for name in columns[2:] if not name.startswith(OWN_REFERENCE)]
    return {
        shift: tuple(
            Accuracies(name, row[reference] / scale, row[shift] / scale)
            for name, row in zip(models, rows, strict=True)
            if reference in row and shift in row
        )
        for shift in shifts
        if f"{OWN_REFERENCE}{shift}" not in columns
    }


def _lines(text: str, where: str) -> list[_Line]:
    reader = csv.reader(StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        lines = [_Line(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ResultsError(f"{where}: line {reader.line_num} is not comma-separated text: {error}.") from error
    lines = [line for line in lines if any(line.cells)]
    if len(lines) < 2:
        raise ResultsError(f"{where}: expected a line with the columns' names and a line per model; found no models.")
    return lines


def _require_header(columns: Sequence[str], where: str) -> None:
    shifts = [name for name in columns[2:] if not name.startswith(OWN_REFERENCE)]
    unknown = [
        name for name in columns[2:] if name.startswith(OWN_REFERENCE) and name[len(OWN_REFERENCE) :] not in shifts
    ]
    if not shifts or not all(columns) or len(set(columns)) < len(columns) or unknown:
        raise ResultsError(
            f"{where}: expected the columns name, reference, and one per shift, each with a name of its own; "
            f"found {', '.join(name or '(empty)' for name in columns)}."
        )


def _accuracies(line: _Line, columns: Sequence[str], where: str) -> dict[str, float]:
    """Accuracies of one model by column; empty cells are left out."""
    cells = line.cells
    if len(cells) != len(columns) or not cells[0]:
        raise ResultsError(
            f"{where}: line {line.number} has {len(cells)} cells, the first being {cells[0] or 'empty'!r}; expected a "
            f"name and {len(columns) - 1} accuracies."
        )
    pairs = zip(columns[1:], cells[1:], strict=True)
    return {name: _accuracy(cell, f"{where}: line {line.number}, column {name}") for name, cell in pairs if cell}


def _scale(models: Sequence[str], rows: Sequence[Mapping[str, float]], reference: str, where: str) -> float:
    """What accuracies are divided by: 100 for percentages, 1 for shares."""
    if not any(cell > 1 for row in rows for cell in row.values()):
        return 1.0
    for name, row in zip(models, rows, strict=True):
        if 0 < row.get(reference, 100.0) <= 1:
            raise ResultsError(
                f"{where}: {name} has {row[reference]:g} in column {reference}, but other numbers are above 1. Write "
                "all accuracies as shares, or all as percentages."
            )
    return 100.0


def _accuracy(cell: str, place: str) -> float:
    try:
        accuracy = float(cell)
    except ValueError:
        accuracy = float("nan")
    if not isfinite(accuracy) or not 0 <= accuracy <= 100:
        raise ResultsError(f"{place}: expected an accuracy as a share or percentage, found {cell!r}.")
    return accuracy

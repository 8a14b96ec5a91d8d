"""Which numbers of a table are the best of their columns."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mergekit_wise.report.table import Cell, Row

if TYPE_CHECKING:
    from mergekit_wise.report.comparison import Images


def best_marked(rows: Sequence[Row], first: int, *, lowest: bool = False) -> tuple[Row, ...]:
    """The rows with the largest number of each column from `first` on marked as the best, if there are two or more.

    With `lowest`, it is the smallest one, as of errors. Where all are the same, none is the best. Numbers on other
    images are not compared: those on the most images are, and of these the most numerous.
    """
    choose = min if lowest else max
    best: dict[int, tuple[Images, float]] = {}
    for place, found in enumerate(compared(rows, first), first):
        if found:
            images = max(found, key=lambda each: (sum(count for _, _, count in each), len(found[each])))
            if not math.isclose(min(found[images]), max(found[images]), abs_tol=1e-12):
                best[place] = images, choose(found[images])

    def marked(place: int, cell: Cell) -> Cell:
        if place not in best or math.isnan(cell.number):
            return cell
        images, number = best[place]
        return replace(cell, best=cell.images == images and math.isclose(cell.number, number, abs_tol=1e-12))

    return tuple(replace(row, cells=tuple(marked(*each) for each in enumerate(row.cells))) for row in rows)


def compared(rows: Sequence[Row], first: int) -> "list[dict[Images, list[float]]]":
    """The numbers of each column from `first` on, by the images that they were measured on."""
    found: list[dict[Images, list[float]]] = []
    for place in range(first, max((len(row.cells) for row in rows), default=0)):
        numbers: dict[Images, list[float]] = {}
        for cell in (row.cells[place] for row in rows):
            if not math.isnan(cell.number):
                numbers.setdefault(cell.images, []).append(cell.number)
        found.append(numbers)
    return found

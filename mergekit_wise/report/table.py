"""One kind of table for all outputs: the terminal, the page, CSV, Markdown and LaTeX.

Knows texts and the numbers behind them; knows nothing of where they come from or how they are drawn. Importing it is
cheap, because the terminal does so at every start.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.analysis import Estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, a smaller text beside it, the number behind it (NaN if there is none), and whether it is the best.

    `images` says what the number was measured on, with the number of images last in each entry: only numbers with the
    same images are compared.
    """

    text: str
    note: str = ""
    number: float = math.nan
    best: bool = False
    images: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Cells. A row about a mixture has its curve's index and its place in the sweep.

    A marked row stands out in the terminal.
    """

    cells: tuple[Cell, ...]
    curve: int | None = None
    alpha: float | tuple[float, ...] | None = None
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows.

    Attributes:
        columns: the heads.
        body: the rows.
        summary: rows below a line.
        title, caption: what the table shows, and what its numbers mean.
        names: how many of the first columns name the row.
    """

    columns: tuple[str, ...]
    body: tuple[Row, ...]
    summary: tuple[Row, ...] = ()
    title: str = ""
    caption: str = ""
    names: int = 1

    @classmethod
    def of_texts(
        cls, columns: Sequence[str], rows: Iterable[Sequence[str]], marked: Sequence[bool] | None = None
    ) -> "Table":
        """A table of plain texts; `marked` says which rows stand out, by default none."""
        texts = list(rows)
        marks = [False] * len(texts) if marked is None else marked
        body = (Row(tuple(map(Cell, row)), marked=mark) for row, mark in zip(texts, marks, strict=True))
        return cls(tuple(columns), tuple(body))

    @classmethod
    def of_cells(
        cls, columns: Sequence[str], rows: Iterable[Sequence["Cell | str"]], marked: Sequence[bool], names: int = 1
    ) -> "Table":
        """A table of cells, some of which are plain texts; the first `names` columns name the row."""
        cells = ([cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows)
        body = (Row(tuple(row), marked=mark) for row, mark in zip(cells, marked, strict=True))
        return cls(tuple(columns), tuple(body), names=names)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The texts of all rows, those of the summary last."""
        return tuple(tuple(cell.text for cell in row.cells) for row in (*self.body, *self.summary))

    @property
    def text_columns(self) -> tuple[bool, ...]:
        """For each column, whether it is aligned as text: it names the row, or no cell of the body has a number."""
        return tuple(
            place < self.names or all(math.isnan(row.cells[place].number) for row in self.body)
            for place in range(len(self.columns))
        )

    @property
    def marked(self) -> tuple[bool, ...]:
        """For each of `rows`, whether it stands out."""
        return tuple(row.marked for row in (*self.body, *self.summary))


EMPTY = Cell("")

EXTRAPOLATED = " †"
"""Follows an effective robustness outside of the range of the models that its line was fitted to."""

ENDPOINTS = {0.0: "zero-shot", 1.0: "fine-tuned"}
"""Names of the two models, by their alphas."""


def share(value: float) -> Cell:
    """A cell with a share as a percentage, empty for NaN; it can be compared with others of its column."""
    return Cell(percent(value, ""), number=value)


def percent(share: float, unknown: str = "–") -> str:
    """A share as a percentage with one decimal; `unknown` for NaN."""
    return unknown if math.isnan(share) else f"{100 * share:.1f}"


def points(share: float) -> str:
    """A difference in percentage points, signed, with a minus sign as wide as a plus; a dash for NaN."""
    return "–" if math.isnan(share) else f"{100 * share:+.1f}".replace("-", "−")


def interval(result: "Estimate", to: str = "–") -> str:
    """The interval of a share as percentages, cut at 0 and 100; empty if it is unknown."""
    if math.isnan(result.low):
        return ""
    return f"{percent(max(result.low, 0.0))}{to}{percent(min(result.high, 1.0))}"


def points_interval(result: "Estimate") -> str:
    """The interval of a difference in percentage points; empty if it is unknown."""
    return "" if math.isnan(result.low) else f"{points(result.low)} to {points(result.high)}"


def alpha_text(alpha: float | tuple[float, ...] | None) -> str:
    """An alpha, or the values of several parameters; a dash if it is unknown."""
    if alpha is None:
        return "–"
    return ", ".join(f"{number:g}" for number in (alpha if isinstance(alpha, tuple) else (alpha,)))


def listed(words: Iterable[str], most: int = 6) -> str:
    """Words with commas between, cut short after `most`."""
    found = list(words)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")

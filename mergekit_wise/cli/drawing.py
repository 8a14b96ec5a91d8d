"""What rich draws: texts with styles on terminals, and tables anywhere. Imported where there is something to draw."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NoReturn

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from mergekit_wise.cli.console import BROKEN_PIPE, UNBOUNDED, discard
from mergekit_wise.report.table import Cell, Table
from mergekit_wise.wording import visible

if TYPE_CHECKING:
    from mergekit_wise.cli.console import Stream

NARROWEST = 16
"""The smallest width of the column of names in a table, however narrow the terminal is."""

HEADS = (8, 5)
"""Table headings are not broken into lines shorter than this: the second number, if that saves a piece of the table."""


class Drawing(Console):
    """A rich console for a stream, which prints texts literally."""

    def __init__(self, stream: "Stream", *, stderr: bool) -> None:
        self._stream = stream
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        found = super().size
        return found if self._stream.on_screen else ConsoleDimensions(UNBOUNDED, found.height)

    def print_text(self, text: str, styled: int, style: str) -> None:
        """Print a text without wrapping it, its first characters in a style."""
        drawn = Text(text)
        drawn.stylize(style, 0, styled)
        self.print(drawn, soft_wrap=True)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Draw as rich does, with escapes for control characters in texts: many come from files that others wrote."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly, as other programs do when their reader has read enough."""
        discard(self.file)
        raise SystemExit(BROKEN_PIPE)


def pieces_of(table: Table, width: int) -> Iterator[RichTable]:
    """A table as rich draws it, in as many pieces as it needs in this width."""
    # Columns are as wide as what is printed.
    rows = [[_printed(cell) for cell in row.cells] for row in (*table.body, *table.summary)]
    marks = (table.marked, table.names)
    drawn = [Table.of_cells(_heads(table.columns, rows, least), rows, *marks) for least in HEADS]
    besides = [width - min(_width(each, 0), max(NARROWEST, width // 3)) for each in drawn]
    choices = [(each, _pieces(each, beside), beside) for each, beside in zip(drawn, besides, strict=True)]
    table, pieces, beside = min(choices, key=lambda choice: len(choice[1]))
    for piece in pieces:
        yield _drawn(table, piece, beside, width)


def _printed(cell: Cell) -> Cell:
    """A cell as it is printed: the best of a column has a star, for colours and bold letters are lost in files."""
    return replace(cell, text=f"{'*' if cell.best else ''}{visible(cell.text)}")


def _pieces(table: Table, beside: int) -> list[list[int]]:
    """The columns of each piece. Every piece repeats the first column, and the others that name the rows."""
    names = [*range(1, table.names)]
    pieces = [names.copy()]
    rest = beside - sum(1 + _width(table, column) for column in names)
    room = rest
    for column in range(table.names, len(table.columns)):
        needed = 1 + _width(table, column)
        if needed > room and len(pieces[-1]) > len(names):
            pieces.append(names.copy())
            room = rest
        pieces[-1].append(column)
        room -= needed
    return pieces


def _width(table: Table, column: int) -> int:
    cells = (*table.columns[column].split("\n"), *(row[column] for row in table.rows))
    return max(map(cell_len, cells))


def _heads(columns: Sequence[str], rows: Sequence[Sequence[Cell]], least: int) -> list[str]:
    """The headings of the columns, on several lines if they are wider than the column's cells and than `least`."""
    heads = []
    for column, title in enumerate(map(visible, columns)):
        widest = max((cell_len(row[column].text) for row in rows), default=0)
        heads.append("\n".join(wrap(title, max(least, widest), break_long_words=False)))
    return heads


def _drawn(table: Table, piece: list[int], beside: int, width: int) -> RichTable:
    drawn = RichTable(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column(table.columns[0], overflow="fold")
    for column in piece:
        whole = 1 + _width(table, column) <= beside
        drawn.add_column(table.columns[column], justify="right", overflow="fold", no_wrap=whole)
    room = width - sum(1 + _width(table, column) for column in piece)
    for row in table.body:
        cells = (Text(row.cells[column].text, "bold" if row.cells[column].best else "") for column in piece)
        drawn.add_row(Text(_at_dots(row.cells[0].text, room)), *cells, style="bold" if row.marked else "")
    return drawn


def _at_dots(name: str, room: int) -> str:
    """A name that is too long for a line broken after dots, as far as there are any; rich breaks the rest anywhere."""
    lines = [""]
    for part in re.split(r"(?<=\w\.)(?=\w)", name) if len(name) > room else [name]:
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)

"""The two streams: results go to `out`, everything else to `err`.

Lines are wrapped at words for people, at the width of their terminal, and not at all for files and pipes.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import fill, wrap
from typing import IO, Any, NoReturn

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from mergekit_wise.api.result_object import plain
from mergekit_wise.report.table import Table
from mergekit_wise.wording import visible

UNBOUNDED = 100_000
"""Columns of a stream that is no terminal."""

NARROWEST = 16
"""The smallest width of the column of names in a table, however narrow the terminal is."""

HEAD = 8
"""Table headings are not broken into lines shorter than this."""

BROKEN_PIPE = 141
"""The exit code that shells give a program whose reader has gone."""


TO_COPY = ("    wise ", "    --")
"""How lines of messages begin that are commands or options for the user to copy."""


class Stream(Console):
    """A rich console that prints texts literally: names of files and tensors may look like markup or emoji."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    @property
    def on_screen(self) -> bool:
        """Whether the stream is a terminal; environment variables that force colours do not make a file one."""
        return bool(self.file.isatty())

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        found = super().size
        return found if self.on_screen else ConsoleDimensions(UNBOUNDED, found.height)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as rich does, but wrap texts at words only, so that a long path can still be copied."""
        if len(objects) == 1 and isinstance(objects[0], str) and not settings.get("soft_wrap"):
            objects, settings = (self._wrapped(objects[0]),), {**settings, "soft_wrap": True}
        super().print(*objects, **settings)

    def print_message(self, message: str, lead: str, style: str) -> None:
        """Print a message after a styled word."""
        text = Text(self._wrapped(lead + message))
        text.stylize(style, 0, len(lead))
        self.print(text, soft_wrap=True)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Draw as rich does, with escapes for control characters in texts: many come from files that others wrote."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly, as other programs do when their reader has read enough."""
        discard(self.file)
        raise SystemExit(BROKEN_PIPE)

    def _wrapped(self, message: str) -> str:
        return "\n".join(_fill(line, self.width) for line in visible(message).split("\n"))


def _fill(line: str, width: int) -> str:
    """Break a line into several lines with the same indentation; not one to copy, which stays a single line."""
    if line.startswith(TO_COPY):
        return line
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


out = Stream()
err = Stream(stderr=True)


def discard(stream: IO[str]) -> None:
    """Send what a stream still holds, and what is printed from now on, nowhere: its file cannot be written any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say(message: str) -> None:
    """Print a message on stderr."""
    err.print(message)


def notes(messages: tuple[str, ...]) -> None:
    """Print notes on stderr: how files were read and what was decided."""
    for message in messages:
        err.print_message(message, "note: ", "yellow")


def fail(message: str) -> None:
    """Print an error on stderr."""
    err.print_message(message, "error: ", "bold red")


def show(table: Table, title: str) -> None:
    """Print a table on stdout, marked rows in bold. A table that is too wide is printed in pieces."""
    # Columns are as wide as what is printed.
    table = Table.of_texts([*map(visible, table.columns)], ([*map(visible, row)] for row in table.rows), table.marked)
    out.print_message("", title, "bold")
    beside = out.width - min(_width(table, 0), max(NARROWEST, out.width // 3))
    for index, piece in enumerate(_pieces(table, beside)):
        if index:
            out.print()
        out.print(_drawn(table, piece, beside))


def _pieces(table: Table, beside: int) -> list[list[int]]:
    """The columns of each piece. Every piece repeats the first column, which names the rows."""
    pieces: list[list[int]] = [[]]
    room = beside
    for column in range(1, len(table.columns)):
        needed = 1 + _width(table, column)
        if needed > room and pieces[-1]:
            pieces.append([])
            room = beside
        pieces[-1].append(column)
        room -= needed
    return pieces


def _width(table: Table, column: int) -> int:
    cells = (*_head(table, column).split("\n"), *(row[column] for row in table.rows))
    return max(map(cell_len, cells))


def _head(table: Table, column: int) -> str:
    """The heading of a column, on several lines if it is wider than the column's cells."""
    widest = max((cell_len(row[column]) for row in table.rows), default=0)
    return "\n".join(wrap(table.columns[column], max(HEAD, widest), break_long_words=False))


def _drawn(table: Table, piece: list[int], beside: int) -> RichTable:
    drawn = RichTable(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column(_head(table, 0), overflow="fold")
    for column in piece:
        whole = 1 + _width(table, column) <= beside
        drawn.add_column(_head(table, column), justify="right", overflow="fold", no_wrap=whole)
    room = out.width - sum(1 + _width(table, column) for column in piece)
    for row, marked in zip(table.rows, table.marked, strict=True):
        cells = (_at_dots(row[0], room), *(row[column] for column in piece))
        drawn.add_row(*map(Text, cells), style="bold" if marked else "")
    return drawn


def _at_dots(name: str, room: int) -> str:
    """A name that is too long for a line broken after dots, as far as there are any; rich breaks the rest anywhere."""
    lines = [""]
    for part in re.split(r"(?<=\w\.)(?=\w)", name) if len(name) > room else [name]:
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def line_writer(*columns: str) -> Callable[[Sequence[str]], None]:
    """Write the head of a list to stdout; returns the function that writes each of its lines, at once.

    Cells are separated by tabs, as cut, sort and awk expect them. For files and pipes, where tables would have to wait
    for their last row. Must be called before bars are drawn, because those take over stdout.
    """
    file = out.file

    def write(cells: Sequence[str]) -> None:
        file.write("\t".join(visible(cell).replace("\t", r"\t").replace("\n", r"\n") for cell in cells) + "\n")
        file.flush()

    write(columns)
    return write


def show_json(value: Any) -> None:
    """Print a result as JSON on stdout; infinities and NaN, which JSON lacks, become null."""
    out.print(json.dumps(plain(value), indent=2, allow_nan=False), soft_wrap=True)


def in_bytes(count: int) -> str:
    """A number of bytes with a readable unit."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"

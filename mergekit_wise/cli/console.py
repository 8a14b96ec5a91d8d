"""The two streams: results go to `out`, everything else to `err`.

Lines are wrapped at words for people, at the width of their terminal, and not at all for files and pipes. Texts for
those are written as they are; `drawing`, which imports rich, is for terminals and tables. Long lists are shortened in
terminals alone, where they would scroll away what comes before them.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import IO, TYPE_CHECKING, Any

from mergekit_wise.wording import alike, listed, visible

if TYPE_CHECKING:
    from mergekit_wise.cli.drawing import Drawing
    from mergekit_wise.report.table import Table

UNBOUNDED = 100_000
"""Columns of a stream that is no terminal."""

BROKEN_PIPE = 141
"""The exit code that shells give a program whose reader has gone."""

FULL = "--full"
"""The option with which nothing is shortened."""

MOST_NOTES = 12
"""Notes beyond which the rest is counted."""

MOST_LINES = 8
"""The same for other lists of lines."""

TO_COPY = ("    wise ", "    --")
"""How lines of messages begin that are commands or options for the user to copy."""


class Stream:
    """Stdout or stderr. Texts are printed literally: names of files and tensors may look like markup or emoji."""

    def __init__(self, *, stderr: bool = False) -> None:
        self.full = False
        self._stderr = stderr
        self._drawing: Drawing | None = None
        self._has_status = False

    @property
    def file(self) -> IO[str]:
        """What is written to; while bars are drawn, not what takes the place of it, and nowhere if it was closed."""
        file = sys.stderr if self._stderr else sys.stdout
        return self.drawing.file if file is None else getattr(file, "rich_proxied_file", file)

    @property
    def on_screen(self) -> bool:
        """Whether the stream is a terminal; environment variables that force colours do not make a file one."""
        return bool(self.file.isatty())

    @property
    def width(self) -> int:
        """Columns."""
        return self.drawing.width if self.on_screen else UNBOUNDED

    @property
    def drawing(self) -> "Drawing":
        """Rich's console for this stream. Importing rich takes longer than a small merge."""
        if self._drawing is None:
            from mergekit_wise.cli.drawing import Drawing

            self._drawing = Drawing(self, stderr=self._stderr)
        return self._drawing

    @property
    def shortens(self) -> bool:
        """Whether long lists are shortened."""
        return self.on_screen and not self.full

    def begin_status(self, text: str) -> None:
        """Show a line in a terminal until something else is printed, or `end_status` is called."""
        if not self.on_screen:
            return
        if os.environ.get("TERM") in ("dumb", "unknown"):  # cannot take it back
            self.file.write(f"{text}\n")
        else:
            self.file.write(f"{text[: shutil.get_terminal_size().columns - 1]}\r")
            self._has_status = True
        self.file.flush()

    def end_status(self) -> None:
        """Remove the line, if there is one."""
        if self._has_status:
            self.file.write("\x1b[2K")
            self.file.flush()
            self._has_status = False

    def print(self, what: Any = "", *, soft_wrap: bool = False) -> None:
        """Print a text, or something for rich to draw.

        A text is wrapped at words only, so that a long path can still be copied, and not at all with `soft_wrap`.
        """
        err.end_status()
        if not isinstance(what, str):
            self.drawing.print(what, soft_wrap=soft_wrap)
        else:
            self._print(what if soft_wrap else self._wrapped(what))

    def print_message(self, message: str, lead: str, style: str) -> None:
        """Print a message after a styled word."""
        err.end_status()
        self._print(self._wrapped(lead + message), len(lead), style)

    def _print(self, text: str, styled: int = 0, style: str = "") -> None:
        """Print a text, its first `styled` characters in a style where there are any."""
        if self.on_screen or _is_forced():
            self.drawing.print_text(text, styled, style)
            return
        try:
            self.file.write(visible(text).expandtabs() + "\n")
            self.file.flush()
        except BrokenPipeError:  # whoever reads has read enough
            discard(self.file)
            raise SystemExit(BROKEN_PIPE) from None

    def _wrapped(self, message: str) -> str:
        return "\n".join(_fill(line, self.width) for line in visible(message).split("\n"))


def _is_forced() -> bool:
    """Whether the environment asks for styles even where there is no terminal, as rich reads it."""
    compatible = os.environ.get("TTY_COMPATIBLE")
    return compatible == "1" or (compatible != "0" and bool(os.environ.get("FORCE_COLOR")))


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
    """Print notes on stderr: how files were read and what was decided.

    In a terminal, those of several data sets that say the same are one.
    """
    shown = alike(messages) if err.shortens else list(messages)
    most = MOST_NOTES if err.shortens else len(shown)
    for message in shown[:most]:
        err.print_message(message, "note: ", "yellow")
    if len(shown) > most:
        err.print_message(f"{len(shown) - most} more notes; {FULL} prints all", "note: ", "yellow")


def say_lines(messages: Sequence[str]) -> None:
    """Print messages on stderr, in a terminal the first of them and how many follow."""
    most = MOST_LINES if err.shortens else len(messages)
    for message in messages[:most]:
        say(message)
    if len(messages) > most:
        say(f"  and {len(messages) - most} more; {FULL} lists all")


def names(items: Sequence[str]) -> str:
    """Names in a line of stdout; in a terminal the first of them and how many follow."""
    if not out.shortens or len(items) <= MOST_LINES:
        return ", ".join(items)
    return f"{listed(items, MOST_LINES)}; {FULL} lists all"


def fail(message: str) -> None:
    """Print an error on stderr."""
    err.print_message(message, "error: ", "bold red")


def show(table: "Table", title: str) -> None:
    """Print a table on stdout, marked rows in bold, with a star before the best of each column that has one.

    A table that is too wide is printed in pieces. In a terminal, a long one is shortened.
    """
    from mergekit_wise.cli.drawing import pieces_of

    left_out = ""
    if out.shortens:
        from mergekit_wise.cli.shortened import shortened

        table, left_out = shortened(table)
    is_marked = any(cell.best for row in (*table.body, *table.summary) for cell in row.cells)
    out.print_message("", f"{title}; * best of its column" if is_marked else title, "bold")
    for index, piece in enumerate(pieces_of(table, out.width)):
        if index:
            out.print()
        out.print(piece)
    if left_out:
        out.print(f"... and {left_out}; {FULL} prints all")


def line_writer(*columns: str) -> Callable[[Sequence[str]], None]:
    """Write the head of a list to stdout; returns the function that writes each of its lines, at once.

    Cells are separated by tabs, as cut, sort and awk expect them. For files and pipes, where tables would have to wait
    for their last row. Must be called before bars are drawn, because those take over stdout.
    """
    err.end_status()
    file = out.file

    def write(cells: Sequence[str]) -> None:
        file.write("\t".join(visible(cell).replace("\t", r"\t").replace("\n", r"\n") for cell in cells) + "\n")
        file.flush()

    write(columns)
    return write


def show_json(value: Any) -> None:
    """Print a result as JSON on stdout; infinities and NaN, which JSON lacks, become null."""
    from mergekit_wise.api.result_object import plain

    out.print(json.dumps(plain(value), indent=2, allow_nan=False), soft_wrap=True)

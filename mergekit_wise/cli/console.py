"""The two streams: results go to `out`, everything else to `err`.

Lines are wrapped at words for people, at the width of their terminal, and not at all for files and pipes. Texts for
those are written as they are; `drawing`, which imports rich, is for terminals and tables.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import IO, TYPE_CHECKING, Any

from mergekit_wise.wording import in_bytes as in_bytes
from mergekit_wise.wording import visible

if TYPE_CHECKING:
    from mergekit_wise.cli.drawing import Drawing
    from mergekit_wise.report.table import Table

UNBOUNDED = 100_000
"""Columns of a stream that is no terminal."""

BROKEN_PIPE = 141
"""The exit code that shells give a program whose reader has gone."""

TO_COPY = ("    wise ", "    --")
"""How lines of messages begin that are commands or options for the user to copy."""


class Stream:
    """Stdout or stderr. Texts are printed literally: names of files and tensors may look like markup or emoji."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr
        self._drawing: Drawing | None = None

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

    def print(self, what: Any = "", *, soft_wrap: bool = False) -> None:
        """Print a text, or something for rich to draw.

        A text is wrapped at words only, so that a long path can still be copied, and not at all with `soft_wrap`.
        """
        if not isinstance(what, str):
            self.drawing.print(what, soft_wrap=soft_wrap)
        else:
            self._print(what if soft_wrap else self._wrapped(what))

    def print_message(self, message: str, lead: str, style: str) -> None:
        """Print a message after a styled word."""
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
    """Print notes on stderr: how files were read and what was decided."""
    for message in messages:
        err.print_message(message, "note: ", "yellow")


def fail(message: str) -> None:
    """Print an error on stderr."""
    err.print_message(message, "error: ", "bold red")


def show(table: "Table", title: str) -> None:
    """Print a table on stdout, marked rows in bold. A table that is too wide is printed in pieces."""
    from mergekit_wise.cli.drawing import pieces_of

    out.print_message("", title, "bold")
    for index, piece in enumerate(pieces_of(table, out.width)):
        if index:
            out.print()
        out.print(piece)


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
    from mergekit_wise.api.result_object import plain

    out.print(json.dumps(plain(value), indent=2, allow_nan=False), soft_wrap=True)

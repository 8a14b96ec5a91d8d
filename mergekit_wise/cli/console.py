"""The two streams: results go to `out`, everything else to `err`."""

import json
import math
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mergekit_wise.report.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A remark for the user, on stderr."""
    err.print(Text(message))


def notes(messages: tuple[str, ...]) -> None:
    """Remarks on how files were read and what was decided."""
    for message in messages:
        err.print(Text("note: ", style="yellow").append(message, style="default"))


def show(table: Table, title: str) -> None:
    """A table on stdout; its marked rows stand out."""
    out.print(Text(title, style="bold"), soft_wrap=True)
    drawn = RichTable(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(table.columns):
        drawn.add_column(column.replace(" ", "\n"), justify="left" if index == 0 else "right", overflow="fold")
    for row, marked in zip(table.rows, table.marked, strict=True):
        drawn.add_row(*map(Text, row), style="bold" if marked else "")
    out.print(drawn)


def show_json(value: Any) -> None:
    """A result on stdout for other programs; what is infinite or not a number is null, which JSON has no word for."""
    out.print(json.dumps(_finite(value), indent=2, allow_nan=False), markup=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_bytes(count: int) -> str:
    """A number of bytes in a unit that people read."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"

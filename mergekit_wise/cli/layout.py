"""How help is laid out. Knows the width of the terminal, and no command."""

import shutil
from functools import partial
from typing import Any

WIDEST = 100
"""Columns beyond which lines of prose are hard to read."""


def help_width() -> int:
    """Columns that help may fill; click would never go below 50, and terminals may."""
    return min(shutil.get_terminal_size().columns, WIDEST) - 2


def fit(formatter: Any) -> None:
    """Let a click formatter put what is too long for a third of the line on a line of its own."""
    formatter.write_dl = partial(formatter.write_dl, col_max=max(10, formatter.width // 3))

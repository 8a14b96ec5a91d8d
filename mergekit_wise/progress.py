"""How long work tells what it does. Knows nothing of who listens: only the command line draws."""

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called as ``progress(what, done, total, unit)``: a task by its name, and how much of it is done."""


def silent(what: str, done: int, total: int, unit: str) -> None:
    """The listener of those who do not listen."""

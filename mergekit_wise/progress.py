"""The callback through which long jobs report progress. Only the command line draws it."""

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called as ``progress(task, done, total, unit)``: the name of a task, and how much of it is done."""


def silent(task: str, done: int, total: int, unit: str) -> None:
    """A progress callback that does nothing."""

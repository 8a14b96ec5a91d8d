"""The callback through which long jobs report progress. Only the command line draws it."""

from collections.abc import Callable, Mapping

Progress = Callable[[str, int, int, str], None]
"""Called as ``progress(task, done, total, unit)``: the name of a task, and how much of it is done.

A task may have parts, which are tasks that begin and end before it ends. What follows "; " in a name may change while
the task goes on.
"""


def silent(task: str, done: int, total: int, unit: str) -> None:
    """A progress callback that does nothing."""


class Whole:
    """A progress callback that also reports some tasks, which follow each other, as parts of one.

    Args:
        progress: the callback that gets both.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task, self._unit = "", ""
        self._sizes: Mapping[str, int] = {}
        self._complete: set[str] = set()

    def begin(self, task: str, sizes: Mapping[str, int], unit: str) -> None:
        """Begin a task whose parts have these names and sizes; one part alone needs no other task."""
        if len(sizes) > 1:
            self._task, self._sizes, self._unit, self._complete = task, sizes, unit, set()
            self._progress(task, 0, sum(sizes.values()), unit)

    def __call__(self, task: str, done: int, total: int, unit: str) -> None:
        """Report a task, and where it is a part, how much of the whole is done.

        One of several processes sees a share of a part, so that shares count, not numbers.
        """
        self._progress(task, done, total, unit)
        if task not in self._sizes or task in self._complete:
            return
        before = sum(self._sizes[name] for name in self._complete)
        if done >= total:
            self._complete.add(task)
        part = self._sizes[task] * done // max(total, 1)
        self._progress(self._task, before + part, sum(self._sizes.values()), self._unit)

"""Progress bars as rich draws them. Imported where stderr is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from mergekit_wise import progress as listeners
from mergekit_wise.cli.console import err
from mergekit_wise.wording import visible

SHORTEST = 8
"""The smallest width of a task's name, however narrow the terminal is."""


class _Name(ProgressColumn):
    """The name of a task, cut so that the rest of the line fits."""

    def __init__(self, room: int) -> None:
        super().__init__(Column(no_wrap=True))
        self._room = room

    def render(self, task: Task) -> Text:
        name = Text(task.description)
        name.truncate(max(SHORTEST, self._room - _AMOUNT.render(task).cell_len), overflow="ellipsis")
        return name


class _Amount(ProgressColumn):
    """The amount done and the total: bytes in their units, everything else as numbers."""

    _bytes = DownloadColumn()
    _count = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "bytes":
            return self._bytes.render(task)
        return self._count.render(task).append(f" {task.fields['unit']}")


class _Rate(ProgressColumn):
    """The speed."""

    _bytes = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if task.fields["unit"] == "bytes" or speed is None:
            return self._bytes.render(task) if speed else Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s", style="progress.data.speed")


_AMOUNT = _Amount(Column(no_wrap=True))


@contextmanager
def drawn_bars() -> Iterator[listeners.Progress]:
    """A progress callback that draws one bar per task on stderr while the block runs.

    The bars of finished tasks are printed above, so that a hundred data sets do not need a terminal of a hundred
    lines.
    """
    display = Progress(*_columns(err.width), console=err.drawing)
    tasks: dict[str, TaskID] = {}
    finished: set[str] = set()

    def listen(name: str, done: int, total: int, unit: str) -> None:
        name = visible(name)
        what = name.partition("; ")[0]  # the rest changes during the task
        if done >= total and what in finished:
            return
        if what not in tasks:
            finished.discard(what)
            tasks[what] = display.add_task(name, total=total, unit=unit)
        display.update(tasks[what], description=name, completed=done, total=total)
        if done >= total:
            finished.add(what)
            _leave_behind(display, tasks.pop(what))

    with display:
        yield listen


def _columns(width: int) -> list[ProgressColumn]:
    """The columns that fit into one line; the name and the amount are always among them."""
    columns: list[ProgressColumn] = [_AMOUNT]
    room = width - 1
    if width >= 36:
        columns.append(TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True)))
        room -= 8
    if width >= 72:
        columns.insert(1, _Rate(Column(no_wrap=True)))
        room -= 11
    if width >= 56:
        length = min(20, width // 6)
        columns.insert(0, BarColumn(bar_width=length))
        room -= length + 1
    return [_Name(room), *columns]


def _leave_behind(display: Progress, task: TaskID) -> None:
    """Print the bar of a finished task once, and stop redrawing it."""
    left = display.make_tasks_table([other for other in display.tasks if other.id == task])
    display.remove_task(task)
    display.refresh()
    display.console.print(left)

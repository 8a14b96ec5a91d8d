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
from mergekit_wise.wording import clock, visible

SHORTEST = 8
"""The smallest width of a task's name, however narrow the terminal is."""

IDLE = "working"
"""What is shown between tasks: libraries are loaded, files opened, and models built there."""


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
        if task.total is None:
            return Text("")
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


class _Time(ProgressColumn):
    """The time that is left; what a finished task took, and one of unknown length has taken."""

    max_refresh = 0.5
    """As of rich's own column: estimates would jitter otherwise."""

    _left = TimeRemainingColumn()

    def __init__(self, word: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._word = word

    def render(self, task: Task) -> Text:
        if task.finished or task.total is None:
            taken = task.finished_time if task.finished else task.elapsed
            return Text(clock(taken or 0), style="progress.elapsed")
        return self._left.render(task).append(self._word)


_AMOUNT = _Amount(Column(no_wrap=True))


@contextmanager
def drawn_bars() -> Iterator[listeners.Progress]:
    """A progress callback that draws one bar per task on stderr while the block runs.

    A finished task becomes a line above the bars, so that a hundred of them do not need a terminal of a hundred lines.
    One that was part of another task leaves no line. While there is no task, a bar of unknown length shows that the
    command works.
    """
    err.end_status()
    display = Progress(*_columns(err.width), console=err.drawing, transient=True)
    idle = display.add_task(IDLE, total=None, unit="")
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
            display.update(idle, visible=False)
        display.update(tasks[what], description=name, completed=done, total=total)
        if done >= total:
            finished.add(what)
            task = tasks.pop(what)
            if tasks:  # a part of another one
                display.remove_task(task)
                return
            display.reset(idle, visible=True)
            _leave_behind(display, task)

    with display:
        try:
            yield listen
        finally:
            for task in (idle, *tasks.values()):
                display.remove_task(task)


def _columns(width: int) -> list[ProgressColumn]:
    """The columns that fit into one line; the name and the amount are always among them."""
    columns: list[ProgressColumn] = [_AMOUNT]
    room = width - 1
    if width >= 36:
        word = " left" if width >= 72 else ""
        columns.append(_Time(word))
        room -= 8 + len(word)
    if width >= 72:
        columns.insert(1, _Rate(Column(no_wrap=True)))
        room -= 11
    if width >= 56:
        length = min(20, width // 8)
        columns.insert(0, BarColumn(bar_width=length))
        room -= length + 1
    return [_Name(room), *columns]


def _leave_behind(display: Progress, task: TaskID) -> None:
    """Print the bar of a finished task once, and stop redrawing it."""
    left = display.make_tasks_table([other for other in display.tasks if other.id == task])
    display.remove_task(task)
    display.refresh()
    display.console.print(left)

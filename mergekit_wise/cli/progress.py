"""Progress bars on stderr, for whoever calls back with (what, done, total, unit). Silent where that is no terminal."""

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
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mergekit_wise import progress as listeners
from mergekit_wise.cli.console import err


class _Amount(ProgressColumn):
    """How much of how much: bytes in their units, everything else as numbers."""

    _bytes = DownloadColumn()
    _count = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "bytes":
            return self._bytes.render(task)
        return self._count.render(task).append(f" {task.fields['unit']}")


class _Rate(ProgressColumn):
    """How fast."""

    _bytes = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if task.fields["unit"] == "bytes" or speed is None:
            return self._bytes.render(task) if speed else Text("")
        return Text(f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def bars() -> Iterator[listeners.Progress]:
    """A listener that draws one bar for each task it hears of, while the block runs."""
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        _Amount(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def listen(what: str, done: int, total: int, unit: str) -> None:
        if what not in tasks:
            tasks[what] = display.add_task(what, total=total, unit=unit)
        display.update(tasks[what], completed=done, total=total)

    with display:
        yield listen

"""Progress for files and schedulers' logs: a line a minute, and none from a command that takes less."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mergekit_wise import progress as listeners
from mergekit_wise.wording import clock, in_bytes

EVERY = 60.0
"""Seconds between two lines."""


@dataclass(slots=True)
class _Task:
    """A task, and the amount and the time at which it was first heard of, by which its rate is known."""

    name: str
    done: int
    total: int
    unit: str
    first: int
    began: float

    def line(self, now: float) -> str:
        """``evaluating: 1,200/8,000 images (15 %), 40/s, 0:02:50 left``."""
        is_bytes, passed = self.unit == "bytes", now - self.began
        amount = f"{in_bytes(self.done)} of {in_bytes(self.total)}" if is_bytes else f"{self.done:,}/{self.total:,}"
        share = f"{100 * self.done // max(self.total, 1)} %"
        text = f"{self.name}: {amount}{'' if is_bytes else f' {self.unit}'} ({share})"
        rate = (self.done - self.first) / passed if passed > 0 else 0.0
        if rate <= 0:
            return text
        speed = in_bytes(int(rate)) if is_bytes else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{text}, {speed}/s, {clock((self.total - self.done) / rate)} left"


@contextmanager
def logged_lines(write: Callable[[str], None], every: float = EVERY) -> Iterator[listeners.Progress]:
    """A progress callback; while the block runs, a line goes to `write` every so many seconds.

    The line describes the oldest running task, because later ones are parts of it. A thread of its own writes it, so
    that lines also appear while libraries are loaded and files are read, which report no progress.
    """
    tasks: dict[str, _Task] = {}
    began, ended = time.monotonic(), threading.Event()

    def listen(name: str, done: int, total: int, unit: str) -> None:
        what = name.partition("; ")[0]
        if done >= total:
            tasks.pop(what, None)
        elif (task := tasks.get(what)) is None:
            tasks[what] = _Task(name, done, total, unit, done, time.monotonic())
        else:
            task.name, task.done, task.total = name, done, total

    def report() -> None:
        while not ended.wait(every):
            now, running = time.monotonic(), next(iter(list(tasks.values())), None)
            write(f"working for {clock(now - began)}" if running is None else running.line(now))

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield listen
    finally:
        ended.set()
        thread.join()

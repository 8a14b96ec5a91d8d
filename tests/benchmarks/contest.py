"""Processes beside each other: what each took, by turns. Knows nothing of what is measured.

Every run is a whole process, whose children count as its own. It imports nothing large, since a child's peak memory
starts from its parent's. Linux only.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median

SAMPLE_SECONDS = 0.01
PRINTED = re.compile(r"^seconds (\S+)(?:\n(result) (.*))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds on the wall, of all its processors, and of its work after imports; bytes at their peaks.

    Peaks are of resident memory, its private part and its mapped pages. `result` is what the work found, in words;
    `failure` is why there is none.
    """

    wall: float
    cpu: float
    inner: float | None
    resident: float
    private: float
    mapped: float
    result: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Contest:
    """Contestants that do the same work.

    `ours` is the one that the others are compared with, by the seconds of whole processes, or by those that the work
    itself took where processes start in ways that no user meets. `scale` is what everybody knows the duration of, `cp`
    for one. `settle` runs before each run, `sums` are rows made of others: how often each counts. `rivals` are those
    that the README compares with; without any, it does not show the contest.
    """

    section: str
    what: str
    commands: Mapping[str, Sequence[str]]
    ours: str
    scale: str = ""
    whole: bool = True
    repeat: int = 3
    settle: Callable[[], None] = lambda: None
    sums: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rivals: Sequence[str] = ()


@dataclass(slots=True)
class Peaks:
    """The largest private and mapped memory of a process, in bytes, looked at while it runs."""

    done: threading.Event = field(default_factory=threading.Event)
    private: int = 0
    mapped: int = 0

    def watch(self, pid: int) -> None:
        """Look until `done` is set; a process that has ended has no memory."""
        while not self.done.wait(SAMPLE_SECONDS):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            self.private = max(self.private, int(status.get("RssAnon", "0 kB").split()[0]) << 10)
            self.mapped = max(self.mapped, int(status.get("RssFile", "0 kB").split()[0]) << 10)


def measure(command: Sequence[str]) -> Run:
    """Run a command to its end and say what it took."""
    peaks = Peaks()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        watcher = threading.Thread(target=peaks.watch, args=(process.pid,))
        watcher.start()
        # WNOWAIT leaves the process in the table until the watcher has stopped.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - began
        peaks.done.set()
        watcher.join()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        failure = _reason(errors.read()) if process.returncode else ""
        printed = PRINTED.search(out.read())
    inner, result = (float(printed[1]), printed[3] or "") if printed else (None, "")
    sizes = (usage.ru_maxrss << 10, peaks.private, peaks.mapped)
    return Run(wall, usage.ru_utime + usage.ru_stime, inner, *sizes, result, failure)


def _reason(text: str) -> str:
    """The last line that names an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:120].replace("|", "/")


def race(contest: Contest) -> dict[str, Run]:
    """Let the contestants take turns; the medians of each. One that fails does not run again."""
    runs: dict[str, list[Run]] = {name: [] for name in contest.commands}
    for turn, name in product(range(contest.repeat), contest.commands):
        if any(run.failure for run in runs[name]):
            continue
        contest.settle()
        print(f"  {turn + 1}/{contest.repeat} {name}", file=sys.stderr, end="", flush=True)
        runs[name].append(measure(contest.commands[name]))
        print(f": {runs[name][-1].failure or f'{runs[name][-1].wall:.2f} s'}", file=sys.stderr)
    return {name: _medians(taken) for name, taken in runs.items()} | {
        name: _total([(times, _medians(runs[part])) for part, times in parts.items()])
        for name, parts in contest.sums.items()
    }


def _medians(runs: Sequence[Run]) -> Run:
    """Of times; memory is the largest, and results are one unless runs found different ones."""
    inner = [run.inner for run in runs if run.inner is not None]
    return Run(
        median(run.wall for run in runs),
        median(run.cpu for run in runs),
        median(inner) if inner else None,
        max(run.resident for run in runs),
        max(run.private for run in runs),
        max(run.mapped for run in runs),
        " or ".join(sorted({run.result for run in runs})),
        next((run.failure for run in runs if run.failure), ""),
    )


def _total(parts: Sequence[tuple[int, Run]]) -> Run:
    """Runs one after the other."""
    inner = sum(times * (run.inner or 0) for times, run in parts)
    wall, cpu = (sum(times * getattr(run, kind) for times, run in parts) for kind in ("wall", "cpu"))
    largest = (max(getattr(run, kind) for _, run in parts) for kind in ("resident", "private", "mapped"))
    return Run(wall, cpu, inner, *largest, failure=next((run.failure for _, run in parts if run.failure), ""))

"""The processor, the memory and the terminal of this process. Imports no torch; `devices` does."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from mergekit_wise.cores import cpu_quota, usable_cores
from mergekit_wise.diagnosis.finding import Finding, Section
from mergekit_wise.wording import in_bytes

MEMORY_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container sees the limit on its memory: version 2 of control groups, and version 1."""

NARROW = 60
"""Columns below which tables are printed in pieces."""


def processor_and_memory(root: Path = Path("/")) -> Section:
    """How many cores and how much memory the process may use.

    Args:
        root: the root folder of the file system, in which a container's limits are looked for.
    """
    cores, total = usable_cores(), os.cpu_count() or 1
    quota = cpu_quota(root)
    because = "" if cores == total else f" of {total} (this process may not use the others)"
    if quota is not None:
        because = f" of {total} (limit of the container: {quota:g})"
    found = [Finding("cores", f"{cores}{because}")]
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and threads.isdecimal() and int(threads) < cores:
        found.append(Finding("OMP_NUM_THREADS", threads, "note", "torch computes with no more threads than this"))
    memory, limit = physical_memory(), memory_limit(root)
    if memory is not None:
        limited = f", of which the container may use {in_bytes(limit)}" if limit is not None and limit < memory else ""
        found.append(Finding("memory", in_bytes(memory) + limited))
    return Section("Processor and memory", tuple(found))


def physical_memory() -> int | None:
    """The memory of the machine in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def memory_limit(root: Path = Path("/")) -> int | None:
    """The memory that a container may use, in bytes; None if there is no limit or none is known."""
    for path in MEMORY_LIMITS:
        try:
            return int((root / path).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def terminal(file: IO[str] | None = None, environment: Mapping[str, str] = os.environ) -> Section:
    """What the output is written to, and how wide it is.

    Args:
        file: the output, by default stdout.
        environment: the environment variables.
    """
    file = sys.stdout if file is None else file
    if file is None or not file.isatty():
        found = [Finding("stdout", "no terminal: lines are not wrapped, tables have no colours")]
    else:
        columns = shutil.get_terminal_size().columns
        found = [Finding("stdout", f"a terminal of {columns} columns")]
        if columns < NARROW:
            found = [Finding("stdout", found[0].value, "note", "wide tables are printed in pieces")]
        colours = "no" if environment.get("NO_COLOR") or environment.get("TERM") in ("dumb", "unknown") else "yes"
        because = " (NO_COLOR is set)" if environment.get("NO_COLOR") else ""
        found.append(Finding("colours", f"{colours}{because}"))
    encoding = (getattr(file, "encoding", None) or "").lower().replace("_", "-")
    if encoding and encoding not in ("utf-8", "utf8"):
        found.append(
            Finding(
                "encoding",
                encoding,
                "note",
                "characters that it lacks are printed as escapes",
                "set PYTHONUTF8=1" if os.name == "nt" else "export PYTHONUTF8=1",
            )
        )
    elif encoding:
        found.append(Finding("encoding", encoding))
    return Section("Terminal", tuple(found))

"""How many cores this process may use: fewer than the machine has, on a cluster or in a container. Imports no torch."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

CGROUPS: Mapping[str, tuple[str, ...]] = {
    "/sys/fs/cgroup/cpu.max": (),  # version 2: quota and period
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": ("/sys/fs/cgroup/cpu/cpu.cfs_period_us",),  # version 1: a file for each
}
"""Where a container sees the limit on its processor time."""


def usable_cores() -> int:
    """The cores that the scheduler gives this process, and no more than its container's quota of processor time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The processor time that a container may take, in cores; None if there is no limit or none is known."""
    for first, others in CGROUPS.items():
        try:
            texts = [(root / path.lstrip("/")).read_text() for path in (first, *others)]
            quota, period = map(float, " ".join(texts).split())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 < period:  # -1: no limit
            return quota / period
    return None

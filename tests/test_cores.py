"""How many cores a process may use."""

import os
import subprocess
import sys

import pytest

from mergekit_wise.cores import cpu_quota, usable_cores
from mergekit_wise.merging import open_backend


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
    ids=["version 2", "no limit 2", "version 1", "no limit 1", "no period", "unreadable", "no container"],
)
def test_a_containers_quota_is_read(files, cores, tmp_path):
    """Both versions of control groups say how much processor time there is, or that there is no limit."""
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(None, 64), (0.3, 1), (2.5, 3), (100.0, 64)])
def test_a_quota_limits_the_cores(quota, cores, monkeypatch):
    """A part of a core counts as one, and a quota beyond the cores adds none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("mergekit_wise.cores.cpu_quota", lambda: quota)
    assert usable_cores() == cores


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from mergekit_wise.merging import open_backend
print(open_backend("cpu").threads)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to a core")
def test_a_merge_has_as_many_threads_as_cores_that_it_may_use():
    """Pinned to one core, as by `taskset` or Slurm, it has one thread; with many cores no more than eight."""
    done = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert open_backend("cpu").threads == min(usable_cores(), 8)

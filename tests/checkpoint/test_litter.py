"""What killed runs leave is cleaned by the next, and living runs are left alone."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint.litter import owning, partial_name, remove_litter
from mergekit_wise.checkpoint.writer import writing


def test_an_orphan_is_removed_and_an_owned_one_is_not(tmp_path):
    """Files and folders; and nothing of another output, whatever its name."""
    target = tmp_path / "out[1]*.safetensors"
    orphan, owned, folder = partial_name(target), partial_name(target), partial_name(target)
    other = tmp_path / ".out1x.safetensors.1-a.partial"
    for path in (orphan, owned, other):
        path.touch()
    folder.mkdir()
    (folder / "x").touch()
    with owning(owned):
        remove_litter(target)
        assert {path.name for path in tmp_path.iterdir()} == {owned.name, other.name}
    remove_litter(target)
    assert {path.name for path in tmp_path.iterdir()} == {other.name}


def test_two_runs_to_one_output_both_finish(tmp_path):
    """Neither takes the other's partial file for litter; the last to finish wins, whole."""
    output = tmp_path / "out"
    with writing(output, 8) as first:
        with writing(output, 8) as second:
            second(0, np.full(2, 2.0, np.float32))
        assert output.read_bytes() == np.full(2, 2.0, np.float32).tobytes()
        first(0, np.full(2, 1.0, np.float32))
    assert output.read_bytes() == np.full(2, 1.0, np.float32).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("seed", range(4))
def test_a_merge_that_is_killed_leaves_the_earlier_output_whole(seed, tmp_path):
    """SIGKILL at a random point; the next merge cleans what it left."""
    for name, value in (("zs", 1.0), ("ft", 2.0)):
        save_file({f"w{i}": torch.full((1 << 21,), value) for i in range(16)}, tmp_path / name)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=0.25)
    earlier = (tmp_path / "out").read_bytes()
    words = [sys.executable, "-m", "mergekit_wise", "merge", "zs", "ft", "-o", "out"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    now = (tmp_path / "out").read_bytes()
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out")
    finished = (tmp_path / "out").read_bytes()
    assert now in (earlier, finished)
    assert {path.name for path in tmp_path.iterdir()} == {"zs", "ft", "out"}


def test_a_read_error_in_the_middle_is_told_and_leaves_nothing(pair, tmp_path, wise):
    """A file that becomes shorter while it is read plainly."""
    (tmp_path / "out").write_text("earlier")
    from mergekit_wise.checkpoint import mapped

    class Short(mapped.MappedFile):
        def _read(self, offset, size):
            with self.path.open("r+b") as file:
                file.truncate(offset + size - 1)
            return super()._read(offset, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mergekit_wise.checkpoint.opening.MappedFile", Short)
        result = wise("merge", *pair, "-o", tmp_path / "out", "--no-mmap")
    assert result.exit_code == 1
    assert "became shorter while it was being read" in result.stderr
    assert (tmp_path / "out").read_text() == "earlier"
    assert not list(tmp_path.glob(".out*"))

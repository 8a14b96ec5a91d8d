"""Temporary folders beside results: gone at the end, and after a kill gone with the next run."""

import os
import signal
import subprocess
import sys

import pytest

from mergekit_wise.checkpoint.scratch import scratch_folder

PREFIX = ".wise-mixture-"
KILLED = """
import os, signal, sys
from pathlib import Path
from mergekit_wise.checkpoint.scratch import scratch_folder

with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "mixture.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_is_removed_at_the_end_and_after_an_error(tmp_path):
    """Nothing is left, whatever was written into it."""
    with scratch_folder(tmp_path, PREFIX) as folder:
        (folder / "inner").mkdir()
        assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path, PREFIX) as folder:
        (folder / "file").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_run_is_removed_by_the_next(tmp_path):
    """After SIGKILL the folder is there with its file; the next run in the same place removes both."""
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, PREFIX])
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob(f"{PREFIX}*/*")] == ["mixture.safetensors"]
    with scratch_folder(tmp_path, PREFIX) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_only_abandoned_folders_are_removed(tmp_path):
    """The folder of a running process, one of another name, a file and a link stay."""
    names = ("wise-mixture-1-0123abcd", f"{PREFIX}mine", f"{PREFIX}1-0123abcd-old", f"{PREFIX}x1-0123abcd")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f"{PREFIX}7-0123abcd").write_text("mine")
    (tmp_path / f"{PREFIX}8-0123abcd").symlink_to(tmp_path / names[0])
    before = set(tmp_path.iterdir())
    with scratch_folder(tmp_path, PREFIX) as first, scratch_folder(tmp_path, PREFIX) as second:
        assert set(tmp_path.iterdir()) == {*before, first, second}
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    """The caller says what to do."""
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), scratch_folder(tmp_path, PREFIX):
        pass

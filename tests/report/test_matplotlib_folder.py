"""matplotlib's cache is in a folder that is used again, whatever the home folder is like."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
from mergekit_wise.report.matplotlib_folder import choose_folder
choose_folder()
import matplotlib, os
print(matplotlib.get_configdir(), matplotlib.get_cachedir())
os._exit(9)
"""


def folders(**environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (9, "")
    return done.stdout.split()


@pytest.fixture
def places(tmp_path):
    """A folder for temporary files, and a home that cannot be created, because a file is in its place."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("")
    return tmp_path / "tmp", tmp_path / "file" / "home"


def test_without_a_home_two_killed_runs_share_one_folder(places):
    """Where the home is not writable, the temporary folder holds one folder after two runs that were killed."""
    temporary, home = places
    first = folders(TMPDIR=str(temporary), HOME=str(home))
    assert folders(TMPDIR=str(temporary), HOME=str(home)) == first
    assert [str(path) for path in temporary.iterdir()] == [first[0]]


def test_the_cache_of_the_user_comes_first(places, tmp_path):
    """XDG_CACHE_HOME is used where only the home is not writable."""
    temporary, home = places
    assert (
        folders(TMPDIR=str(temporary), HOME=str(home), XDG_CACHE_HOME=str(tmp_path / "cache"))
        == [str(tmp_path / "cache" / "mergekit_wise" / "matplotlib")] * 2
    )
    assert not list(temporary.iterdir())


def test_what_the_user_chose_is_left_alone(tmp_path):
    """MPLCONFIGDIR, and matplotlib's own folders in a home that is writable, are used as they are."""
    assert folders(HOME=str(tmp_path), MPLCONFIGDIR=str(tmp_path / "own")) == [str(tmp_path / "own")] * 2
    found = folders(HOME=str(tmp_path))
    assert found == [str(tmp_path / ".config" / "matplotlib"), str(tmp_path / ".cache" / "matplotlib")]

"""Runs an example in a folder, and shares the one that others go on from."""

import contextlib
import io
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Ran:
    """Where an example ran, the variables that it left, and what it printed."""

    folder: Path
    found: dict[str, Any]
    printed: str


def run_in(folder, name):
    """Run a script as a user does, in a folder of its own; the number of torch's threads is as before afterwards."""
    threads, printed = torch.get_num_threads(), io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
            found = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    return Ran(folder, found, printed.getvalue())


@pytest.fixture
def run(tmp_path):
    """The name of an example -> what it did in an empty folder."""
    return lambda name: run_in(tmp_path, name)


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory):
    """A folder in which two_cameras.py has run. Tests that write into it use names of their own."""
    return run_in(tmp_path_factory.mktemp("two_cameras"), "two_cameras.py")

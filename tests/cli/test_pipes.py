"""Readers that stop reading, closed streams and full disks: no traceback, and an exit code that says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(words, stdout, **options):
    return subprocess.run(
        [sys.executable, "-m", "mergekit_wise", *words],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def broken():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("words", [("suites",), ("suites", "--json"), ("--help",), ("merge", "--help")], ids=" ".join)
def test_a_reader_that_stops_ends_the_command_quietly(words, broken):
    """As with other programs, nothing is printed, and the exit code is that of a broken pipe or 1."""
    done = run(words, broken)
    assert done.returncode in (1, 141)
    assert not [line for line in done.stderr.splitlines() if "No data folder" not in line]


@pytest.mark.parametrize("words", [("suites",), ("suites", "--json"), ("--help",), ("--version",)], ids=" ".join)
def test_a_full_disk_is_one_sentence(words):
    """Results that cannot be printed are an error with the system's reason."""
    with open("/dev/full", "w") as full:
        done = run(words, full)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if "No data folder" not in line)
    assert line.startswith("error: ")
    assert "No space left on device" in line


def test_closed_streams_are_no_traceback():
    """A command whose stdout was closed by its caller runs; one whose stderr was closed keeps its exit code."""
    done = run(("suites",), None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    done = subprocess.run(
        [sys.executable, "-m", "mergekit_wise", "merge", "none", "none", "-o", "out"],
        cwd=ROOT,
        capture_output=True,
        preexec_fn=lambda: os.close(2),
    )
    assert (done.returncode, done.stdout) == (1, b"")

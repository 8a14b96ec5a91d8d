"""Texts of files and file names reach the terminal without the characters that would control it."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.cli.console import show
from mergekit_wise.report.table import Table

ROOT = Path(__file__).parents[2]
HOSTILE = "w\x1b]0;owned\x07\x1b[2J\u202egnp\x9b31m"
SHOWN = r"w\x1b]0;owned\x07\x1b[2J\u202egnp\x9b31m"
NAME, SHOWN_NAME = "w\u202egnp", r"w\u202egnp"
"""The name of a tensor; names with control characters are refused when a file is opened."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OWN = re.compile(r"\x1b\[(\d+(;\d+)*)?[mAK]|\x1b\[\?25[lh]|\r")
"""The sequences with which the tool itself sets styles and draws bars."""

BARS = """
import sys
from mergekit_wise.cli.console import err
from mergekit_wise.cli.progress import bars
with bars() as progress:
    progress(sys.argv[1], 1, 2, "images")
    progress(sys.argv[1], 2, 2, "images")
"""


@pytest.fixture
def pair(tmp_path):
    """Two checkpoints whose file names, tensor names and metadata are hostile."""
    paths = tmp_path / f"zs{HOSTILE}.safetensors", tmp_path / "ft.safetensors"
    for value, path in enumerate(paths):
        save_file({NAME: torch.full((2, 2), float(value))}, path, {"note": HOSTILE})
    return paths


@pytest.mark.parametrize(
    ("words", "escaped"),
    [
        (("inspect", 0), SHOWN),
        (("diff", 0, 1), SHOWN_NAME),
        (("merge", 0, 1, "-o", HOSTILE), SHOWN),
        (("diff", 1, f"none{HOSTILE}"), SHOWN),
    ],
)
def test_names_and_metadata_are_escaped(words, escaped, wise, pair, tmp_path, monkeypatch):
    """Tables on stdout, notes and errors on stderr show escapes, in whichever part of a file the characters are."""
    monkeypatch.chdir(tmp_path)
    result = wise(*(pair[word] if isinstance(word, int) else word for word in words))
    assert not CONTROL.search(result.stdout + result.stderr)
    assert escaped in result.stdout + result.stderr


def test_columns_are_aligned_by_what_is_printed(capsys):
    """In a table, an escaped name is as wide as it is printed."""
    show(Table.of_texts(("Tensor", "Bytes"), ((NAME, "16"), ("x", "16"))), "Tensors")
    lines = capsys.readouterr().out.splitlines()
    (hostile,) = (line for line in lines if SHOWN_NAME in line)
    (plain,) = (line for line in lines if line.startswith("x "))
    assert len(hostile.rstrip()) == len(plain.rstrip())


def test_progress_bars_show_escapes():
    """The names of tasks, which are the titles of data sets, are escaped on a terminal."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", BARS, HOSTILE], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT
    )
    os.close(theirs)
    written = b""
    while piece := read(ours):
        written += piece
    os.close(ours)
    assert running.wait(60) == 0
    assert r"w\x1b]0" in written.decode()
    assert not CONTROL.search(OWN.sub("", written.decode()))


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""

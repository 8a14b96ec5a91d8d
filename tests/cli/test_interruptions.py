"""Ctrl-C and SIGTERM in real processes: what was saved, how to go on, and the exit codes of shells."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergekit_wise.results import read_records
from tests.small_models import clip_pair, noise

ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import os, sys
number, at = int(sys.argv.pop(1)), int(sys.argv.pop(1))
from mergekit_wise.evaluation.evaluator import Evaluator
from mergekit_wise.cli.app import main

predict, calls = Evaluator.predict, []

def interrupted(*arguments, **others):
    calls.append(1)
    if len(calls) > at:
        os.kill(os.getpid(), number)
    return predict(*arguments, **others)

Evaluator.predict = interrupted
main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a pair of classifiers and two data sets."""
    folder = tmp_path_factory.mktemp("interruptions")
    clip_pair(folder, head=True)
    return noise(folder)


def command(name, folder, *words):
    return [name, folder / "zs.safetensors", *words, "--workers", "0"]


def sweeping(home, *words):
    suite = ",".join(str(home / part) for part in ("ref", "shift"))
    return command("sweep", home, home / "ft.safetensors", "--alphas", "0,1", "--suite", suite, *words)


def interrupted(number, at, words, folder):
    """Exit code and stderr of a sweep that gets a signal when it begins with data set `at`, counted from 0."""
    line = [sys.executable, "-c", INTERRUPTED, number, at, *words]
    done = subprocess.run(
        [str(int(w)) if isinstance(w, int) else str(w) for w in line],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stderr.splitlines()


def test_an_interrupted_sweep_says_what_is_saved_and_goes_on(home, wise, tmp_path, monkeypatch):
    """SIGINT in the second data set: the first one's results are kept, and the same command measures the second."""
    code, lines = interrupted(signal.SIGINT, 1, sweeping(home), tmp_path)
    assert code == 130
    assert lines[-1] == "Interrupted. 2 results saved in results.jsonl; run the same command to continue."
    assert not any(line.startswith(("error:", "Traceback")) for line in lines)
    assert len(read_records(tmp_path / "results.jsonl")) == 2
    monkeypatch.chdir(tmp_path)
    again = wise(*sweeping(home))
    assert (again.exit_code, "2 results reused" in again.stderr) == (0, True)


def test_a_sweep_that_is_interrupted_early_has_saved_nothing(home, tmp_path):
    """SIGTERM in the first data set: no result is saved; merged models that were asked for are, and are named."""
    words = sweeping(home, "--results", "own.jsonl", "--save", "mixed-{alpha}.safetensors")
    code, lines = interrupted(signal.SIGTERM, 0, words, tmp_path)
    assert code == 143
    assert lines[-1] == (
        "Interrupted. No result was saved yet; run the same command again. 2 merged models written: "
        "mixed-0.safetensors, mixed-1.safetensors."
    )
    assert not any(line.startswith(("error:", "Traceback")) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} >= {"mixed-0.safetensors", "mixed-1.safetensors"}


def test_an_interrupted_fine_tuning_says_where_its_state_is(home, tmp_path):
    """SIGTERM while training: the state is saved, and one line says where it is and that the same command goes on."""
    words = command("finetune", home, "--train", home / "ref", "-o", "ft.safetensors", "--epochs", "100000")
    words += ["--batch-size", "6", "--log", "log.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mergekit_wise", *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = tmp_path / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and '"step"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    last = errors.splitlines()[-1]
    assert process.returncode == 143
    assert last.startswith("Stopped at step ")
    assert last.endswith(" State saved in ft.training; run the same command to resume.")
    assert "error:" not in errors
    assert (tmp_path / "ft.training").is_dir()
    assert not (tmp_path / "ft.safetensors").exists()

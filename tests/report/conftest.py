"""Results files like those of sweeps, with numbers from a formula."""

import json
import shutil
from pathlib import Path

import pytest

from mergekit_wise.report.comparison import compare
from mergekit_wise.report.warnings import warnings
from mergekit_wise.results import read_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",  # which root and many containers have none of; the page is ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

ALPHAS = tuple(round(step / 10, 1) for step in range(11))
SETS = (
    # name, title, role, images; accuracy at alpha 0, 0.5 and 1
    ("imagenet", "ImageNet", "reference", 50000, (0.766, 0.868, 0.862)),
    ("imagenet-v2", "ImageNet-V2", "shift", 10000, (0.705, 0.795, 0.768)),
    ("imagenet-sketch", "ImageNet-Sketch", "shift", 50889, (0.609, 0.647, 0.579)),
    ("imagenet-a", "ImageNet-A", "shift", 7500, (0.777, 0.799, 0.654)),
)


def accuracy(shares, alpha: float) -> float:
    """A parabola through the three points."""
    low, middle, high = shares
    return low + alpha * (4 * middle - 3 * low - high) + alpha**2 * (2 * low - 4 * middle + 2 * high)


def entry(name: str, alpha: float | None, *, loss: float = 0.0, **other):
    """One line of a results file, before it is JSON; `loss` is subtracted from the accuracy."""
    _, title, role, total, shares = next(each for each in SETS if each[0] == name)
    share = accuracy(shares, 0.5 if alpha is None else alpha) - loss
    found = {
        "model": "zs.pt + ft.pt",
        "weights": f"{round((alpha or 0) * 1000):016x}",
        "alpha": alpha,
        "suite": "imagenet-shifts",
        "dataset": name,
        "title": title,
        "role": role,
        "correct": round(share * total),
        "total": total,
        "versions": {"mergekit_wise": "0.1.0", "torch": "2.15.0"},
        "seconds": 1.5,
        "metric": "top-1",
    }
    return {**found, **other}


def sweep(alphas=ALPHAS, names=tuple(each[0] for each in SETS), **other):
    """All lines of a sweep."""
    return [entry(name, alpha, **other) for alpha in alphas for name in names]


def with_calibration(line):
    """A line with an expected calibration error of 10 %, and all images in one bin of the reliability diagram."""
    share = [line["total"], line["correct"], 0.7 * line["total"]]
    return {**line, "calibration": {"ece": 0.1}, "reliability": [share, *[[0, 0, 0.0]] * 14]}


def write(path: Path, lines) -> Path:
    """Write a results file; lines that are texts are written unchanged."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without a screen and without a network: one for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found: the page of wise report was not tried in a browser")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def lines():
    """The functions above as attributes: lines.sweep(), lines.entry(), lines.write()."""
    functions = (accuracy, entry, sweep, with_calibration, write)
    return type("Lines", (), {f.__name__: staticmethod(f) for f in functions})


@pytest.fixture
def results(tmp_path) -> Path:
    """A file with one sweep."""
    return write(tmp_path / "results.jsonl", sweep())


@pytest.fixture
def compared(tmp_path, lines):
    """A function that returns the comparisons and the warnings of files with the given lines."""

    def build(*files):
        paths = [lines.write(tmp_path / f"file{number}.jsonl", content) for number, content in enumerate(files)]
        reading = read_results(paths)
        comparisons = compare(reading)
        return comparisons, warnings(reading, comparisons)

    return build

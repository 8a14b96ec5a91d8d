"""The demo reproduces the paper's effect with models that it trains."""

import os
import shlex
import shutil
import subprocess

import pytest
from PIL import Image

from mergekit_wise.analysis import clopper_pearson
from mergekit_wise.api.demo import demo
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.recipe import recipe
from mergekit_wise.results import read_records, to_candidates

pytestmark = pytest.mark.slow


@pytest.fixture
def curve(demo_home):
    return to_candidates(read_records(demo_home / "wise-demo" / "results.jsonl"))


def test_the_best_merged_model_is_above_both_models_on_the_shifts(curve):
    """The best merged model's 95 % interval over the pooled shifts is above those of both models."""
    assert [c.alpha for c in curve] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    best = max(curve, key=lambda c: c.shift_accuracy)
    assert 0 < best.alpha < 1
    for end in (curve[0], curve[-1]):
        pooled, pooled_end = (map(sum, zip(*candidate.shifts, strict=True)) for candidate in (best, end))
        assert clopper_pearson(*pooled)[0] > clopper_pearson(*pooled_end)[1]


def test_fine_tuning_gains_on_the_reference(curve):
    """On the reference the fine-tuned model's 95 % interval is above the zero-shot model's."""
    assert clopper_pearson(*curve[-1].reference)[0] > clopper_pearson(*curve[0].reference)[1]


def test_it_leaves_checkpoints_results_and_a_plot(demo_home):
    """The folder holds two checkpoints, the results, a plot, a report and a recipe, and nothing else."""
    folder = demo_home / "wise-demo"
    names = {path.name for path in folder.iterdir()}
    checkpoints = {"zeroshot.safetensors", "finetuned.safetensors"}
    assert names == checkpoints | {"results.jsonl", "results.answers", "sweep.png"} | {
        "report.html",
        "recipe.toml",
        "recipe.json",
    }
    with Image.open(folder / "sweep.png") as image:
        assert image.width > 600
    printed = (demo_home / "printed.txt").read_text()
    assert "Recommended alpha" in printed
    page = next(line for line in printed.splitlines() if line.endswith(".html")).strip()
    assert "<html" in (demo_home / page).read_text()


def test_the_commands_that_it_prints_succeed(demo_home, tmp_path):
    """The command lines that the demo prints last succeed in a shell, one after the other, in the same folder."""
    shutil.copytree(demo_home / "wise-demo", tmp_path / "wise-demo")
    _, lines = (demo_home / "printed.txt").read_text().split("Try next:\n")
    commands = lines.splitlines()
    assert [shlex.split(line)[3] for line in commands] == ["merge", "eval", "compare"]
    printed = [
        subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for line in commands
    ]
    assert "Average of 7 shifts" in printed[1]


def test_a_second_run_reuses_the_checkpoints(demo_home, tmp_path):
    """A second run reuses the checkpoints and repeats no step, and its counts are the same."""
    shutil.copytree(demo_home / "wise-demo", tmp_path / "again")
    before = {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.safetensors")}
    times = {name: os.stat(tmp_path / "again" / name).st_mtime_ns for name in before}
    report = demo(tmp_path / "again")
    assert {path.name for path in report.reused} == before.keys()
    assert recipe(report.recipe).done == ()
    assert {name: os.stat(tmp_path / "again" / name).st_mtime_ns for name in before} == times
    first = read_records(demo_home / "wise-demo" / "results.jsonl")
    counts, before = ({(r.alpha, r.dataset): r.correct for r in records} for records in (report.sweep.records, first))
    assert counts == before


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_sweep_counts_what_merging_and_evaluating_counts(alpha, demo_home, tmp_path):
    """A sweep has the fingerprints and counts of merging and evaluating at the same alpha."""
    folder = demo_home / "wise-demo"
    merged = tmp_path / "merged.safetensors"
    merge(folder / "zeroshot.safetensors", folder / "finetuned.safetensors", merged, alpha=alpha)
    evaluated = evaluate(merged).records
    swept = [r for r in read_records(folder / "results.jsonl") if r.alpha == alpha]
    assert [(r.dataset, r.correct, r.weights, r.alpha) for r in evaluated] == [
        (r.dataset, r.correct, r.weights, r.alpha) for r in swept
    ]

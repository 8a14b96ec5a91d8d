"""A disk that is full when numbers are measured: they are printed, the exit code is 1, and a later run goes on."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mergekit_wise.models.towers import create_clip

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")

VISION = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIG = {
    "model_cfg": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with two models and two data sets of 3 classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    for seed, name in enumerate(("zs", "ft")):
        torch.manual_seed(seed)
        visual = create_clip(CONFIG["model_cfg"]).visual.state_dict()
        state = {f"visual.{key}": tensor.contiguous() for key, tensor in visual.items()}
        state |= {"classification_head.weight": torch.randn(3, 16), "classification_head.bias": torch.zeros(3)}
        save_file(state, f"{name}.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        for name in ("ant", "bee", "cat"):
            os.makedirs(f"{folder}/{name}")
            for number in range(4):
                Image.fromarray(rng.integers(0, 256, (20, 18, 3), np.uint8)).save(f"{folder}/{name}/{number}.png")
    return tmp_path


def words(text):
    return " ".join(text.split())


def test_numbers_of_an_evaluation_are_printed_before_the_error(wise, home):
    """The table on stdout has the measured data set; the next run with a good file measures all of it."""
    command = ("eval", "zs.safetensors", "--suite", "a,b", "--workers", 0)
    done = wise(*command, "--results", "/dev/full")
    assert done.exit_code == 1
    assert "No space left on device" in words(done.stderr)
    kept = wise(*command, "--json")
    assert kept.exit_code == 0
    first = json.loads(kept.stdout)[0]
    assert f"{first['correct']}/{first['total']}" in words(done.stdout)
    printed = wise(*command, "--results", "/dev/full", "--json")
    assert printed.exit_code == 1
    assert [record["correct"] for record in json.loads(printed.stdout)] == [first["correct"]]


def test_numbers_of_a_sweep_are_printed_before_the_error(wise, home):
    """Every alpha on the measured data set is in the table, and in the JSON."""
    command = ("sweep", "zs.safetensors", "ft.safetensors", "--suite", "a,b", "--alphas", "0,0.5,1", "--workers", 0)
    done = wise(*command, "--results", "/dev/full")
    assert done.exit_code == 1
    printed = json.loads(wise(*command, "--results", "/dev/full", "--json").stdout)["records"]
    assert [(record["alpha"], record["dataset"]) for record in printed] == [(0.0, "a"), (0.5, "a"), (1.0, "a")]
    for record in printed:
        assert f"{record['alpha']:g} {100 * record['value']:.1f}" in words(done.stdout).replace("*", "")


def test_a_plot_that_cannot_be_written_costs_no_number(wise, home):
    """The whole report of the sweep is printed, and the results file holds every record."""
    os.symlink("/dev/full", "plot.png")
    command = ("sweep", "zs.safetensors", "ft.safetensors", "--suite", "digits", "--alphas", "0,1")
    # The head has three classes and the digits ten, so a head is made of class names by a model with a text tower.
    torch.manual_seed(0)
    for name in ("zs", "ft"):
        state = {key: tensor.contiguous() for key, tensor in create_clip(CONFIG["model_cfg"]).state_dict().items()}
        save_file(state, f"{name}.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    done = wise(*command, "--limit", 20, "--workers", 0, "--plot", "plot.png", "--results", "r.jsonl")
    assert done.exit_code == 1, done.output
    assert "plot.png: writing failed: No space left on device" in words(done.stderr)
    assert "Recommended alpha" in done.stdout
    found = [json.loads(line) for line in (home / "r.jsonl").read_text().splitlines()]
    assert len([each for each in found if "kind" not in each]) == 2 * 8


@pytest.mark.parametrize("option", ["--plot", "--results", "--per-class", "--per-sample"])
def test_outputs_of_a_sweep_are_checked_before_the_first_image(wise, home, option):
    """A missing folder, or a folder in place of the file, is an error with exit code 1, and nothing is measured."""
    command = ("sweep", "zs.safetensors", "ft.safetensors", "--suite", "digits", "--workers", 0)
    (home / "folder.png").mkdir()
    for path in ("missing/x.png", "folder.png"):
        done = wise(*command, option, path)
        assert done.exit_code == 1
        assert path in words(done.stderr)
        assert done.stdout == ""
    assert not (home / "results.jsonl").exists()

"""`wise eval` on a folder of images: its table, its results file, its notes and errors."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with a checkpoint without a head and a data set of 3 classes with 4 images each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    torch.manual_seed(0)
    state = {name: tensor.contiguous() for name, tensor in open_clip.CLIP(**CONFIG["model_cfg"]).state_dict().items()}
    save_file(state, "model.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        os.makedirs(f"pets/{name}")
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (20, 18, 3), np.uint8)).save(f"pets/{name}/{number}.png")
    return tmp_path


def test_it_prints_a_table_and_appends_records(wise, home):
    """The table on stdout has the recorded accuracy, interval and counts; a second run reuses the record."""
    result = wise("eval", "model.safetensors", "--suite", "pets", "--workers", 0)
    assert result.exit_code == 0, result.output
    (record,) = map(json.loads, (home / "results.jsonl").read_text().splitlines())
    low, high = record["interval"]
    shown = f"{100 * record['value']:.1f} {100 * low:.1f} - {100 * high:.1f} {record['correct']}/12"
    assert shown in " ".join(result.stdout.split())
    assert "head: zero-shot; fp32 on cpu" in " ".join(result.stderr.split())
    assert "results.jsonl" in " ".join(result.stderr.split())
    again = wise("eval", "model.safetensors", "--suite", "pets", "--workers", 0)
    assert again.stdout == result.stdout
    assert "--redo" in " ".join(again.stderr.split())


def test_json_is_everything_on_stdout(wise, home):
    """With --json stdout holds nothing but the entries of the results file."""
    result = wise("eval", "model.safetensors", "--suite", "pets", "--workers", 0, "--json")
    assert json.loads(result.stdout) == [json.loads((home / "results.jsonl").read_text())]


def test_class_names_limits_and_details_are_used(wise, home):
    """Class names, templates, limit, seed and precision reach the record and the files of details."""
    (home / "names.txt").write_text("an ant\na bee\na cat\n")
    (home / "prompts.txt").write_text("a photo of {}.\n{} in a garden\n")
    options = ("--classnames", "names.txt", "--templates", "prompts.txt", "--limit", 6, "--seed", 1, "--redo")
    files = ("--per-class", "classes.csv", "--per-sample", "samples.jsonl", "--batch-size", 4, "--workers", 1)
    result = wise("eval", "model.safetensors", "--suite", "pets", *options, *files, "--precision", "bf16")
    assert result.exit_code == 0, result.output
    record = json.loads((home / "results.jsonl").read_text())
    assert (record["total"], record["limit"], record["seed"], record["precision"]) == (6, 6, 1, "bf16")
    with (home / "classes.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["an ant", "a bee", "a cat"]
    assert len((home / "samples.jsonl").read_text().splitlines()) == 6


def test_missing_data_sets_are_listed_with_their_downloads(wise, home):
    """Missing data sets are listed with their downloads; with --strict, or if all are missing, they are an error."""
    words = ("eval", "model.safetensors", "--data", home, "--workers", 0, "--templates", "plain")
    result = wise(*words, "--suite", "pets,imagenet-a,imagenet-r")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stderr.split())
    assert "2 of 3" in text
    assert "ImageNet-R: https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar" in text
    assert wise(*words, "--suite", "pets,imagenet-r", "--strict").exit_code == 1
    assert wise(*words, "--suite", "imagenet-r").exit_code == 1


def test_an_unreadable_image_is_named(wise, home):
    """An unreadable image is an error that names it; within --max-bad it is a note, and does not count."""
    (home / "pets" / "bee" / "1.png").write_bytes(b"no image")
    result = wise("eval", "model.safetensors", "--suite", "pets", "--workers", 2)
    assert result.exit_code == 1
    assert "pets/bee/1.png" in result.stderr.replace("\n", "")
    result = wise("eval", "model.safetensors", "--suite", "pets", "--workers", 2, "--max-bad", 1)
    assert result.exit_code == 0
    assert "pets/bee/1.png" in result.stderr.replace("\n", "")
    assert "/11" in result.stdout


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_one_prints(rank, pair):
    """Of several processes only the first prints results, and the others only their errors, with their rank."""
    run = [sys.executable, "-m", "mergekit_wise"]
    env = {**os.environ, "RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run([*run, "inspect", str(pair[0])], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert bool(done.stdout) == (rank == "0")
    done = subprocess.run([*run, "inspect", "nope"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("process 1: error: nope" if rank == "1" else "error: nope")


def test_the_limit_of_pixels_is_an_option_and_its_advice_works(wise, home):
    """An image above the limit is unreadable; with the number that the message gives, all images are counted."""
    words = ("eval", "model.safetensors", "--suite", "pets", "--workers", 1, "--max-pixels")
    refused = wise(*words, 359)
    assert refused.exit_code == 1
    advised = re.search(r"--max-pixels (\d+)", " ".join(refused.stderr.split()))[1]
    result = wise(*words, advised)
    assert result.exit_code == 0, result.output
    assert json.loads((home / "results.jsonl").read_text())["total"] == 12


def test_the_record_says_whether_stored_crops_were_cropped_again(wise, home):
    """ImageNet-C's images of the model's size are taken as they are; of another size, a note names the data set."""
    for severity, side in ((1, 16), (2, 20)):
        folder = home / "imagenet-c" / "fog" / str(severity) / "n01440764"
        folder.mkdir(parents=True)
        Image.new("RGB", (side, side), "red").save(folder / "a.png")
    names = "imagenet-c-fog-1,imagenet-c-fog-2"
    (home / "names.txt").write_text("\n".join(f"class {number:03}" for number in range(1000)))
    words = ("eval", "model.safetensors", "--data", home, "--workers", 0, "--classnames", "names.txt")
    (home / "prompts.txt").write_text("{}\n")
    words += ("--templates", "prompts.txt")
    result = wise(*words, "--suite", names)
    assert result.exit_code == 0, result.output
    records = map(json.loads, (home / "results.jsonl").read_text().splitlines())
    assert [record["preprocess"].get("stored_crops") for record in records] == [True, None]
    text = " ".join(result.stderr.split())
    assert "Fog 2: stored cropped, but to another size" in text
    assert "Fog 1" not in text.partition("stored cropped")[0][-60:]

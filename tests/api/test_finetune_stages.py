"""Training before mixing: a linear probe first, an anchor at the start, and a few images of each class."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from mergekit_wise.api.finetune import Stopped, finetune
from mergekit_wise.api.recipe import recipe
from mergekit_wise.api.sweep import sweep
from mergekit_wise.datasets.digits import train_images
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.models.pair_notes import FINETUNED
from tests.training.fakes import save_tiny

QUICK = {"epochs": 1, "batch_size": 200, "lr": 1e-3, "augment": "none", "workers": 0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Use one thread: small models gain nothing from several, and parallel test processes would compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def zeroshot(tmp_path_factory):
    """An untrained image encoder and head."""
    return save_tiny(tmp_path_factory.mktemp("zs") / "zs.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where features are cached."""
    return tmp_path_factory.mktemp("cache")


PROBE = {"lp_epochs": 3, "lp_lr": 0.02}
SHARED = {"batch_size": 200, "workers": 0, "weight_decay": 0.05, "label_smoothing": 0.1, "seed": 3, "shots": 40}


@pytest.fixture(scope="module")
def probed_first(zeroshot, cache, tmp_path_factory):
    """The folder of a run of both stages, its report and its notes."""
    folder, notes = tmp_path_factory.mktemp("both"), []
    options = {**QUICK, **SHARED, **PROBE, "layer_decay": 0.7, "warmup": 1, "ema": 0.5, "lp_ft": True, "cache": cache}
    log = folder / "ft.log.jsonl"
    report = finetune(zeroshot, "digits", folder / "ft.safetensors", **options, log=log, note=notes.append)
    return folder, report, notes, {**options, "log": log}


def record(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[FINETUNED])


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_linear_probe_first_is_the_two_commands_by_hand(zeroshot, cache, probed_first, tmp_path):
    """The probe has the bytes of --linear, and the output those of fine-tuning it; the record names both stages."""
    folder, report, notes, _ = probed_first
    probe, output = tmp_path / "probe.safetensors", tmp_path / "ft.safetensors"
    finetune(zeroshot, "digits", probe, **SHARED, linear=True, epochs=3, lr=0.02, cache=cache)
    finetune(probe, "digits", output, **QUICK | SHARED, layer_decay=0.7, warmup=1, ema=0.5)
    assert report.probe == folder / "ft-probe.safetensors"
    assert report.probe.read_bytes() == probe.read_bytes()
    by_hand, found = load_file(output), load_file(folder / "ft.safetensors")
    assert by_hand.keys() == found.keys()
    assert all(torch.equal(by_hand[name], tensor) for name, tensor in found.items())
    recorded = record(folder / "ft.safetensors")
    assert recorded.pop("lp_ft") == {"epochs": 3, "lr": 0.02}
    assert recorded == record(output)
    assert "lp_ft" not in record(probe)
    assert [note for note in notes if "stage" in note] == [
        f"stage 1 of 2: linear probe, written to {report.probe}",
        f"stage 2 of 2: all weights, from {report.probe}",
    ]
    assert sum("images drawn" in note for note in notes) == 1
    names = ["ft-probe.log.jsonl", "ft-probe.safetensors", "ft.log.jsonl", "ft.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    steps = [sum(line["event"] == "step" for line in entries(folder / name)) for name in (names[0], names[2])]
    assert steps == [6, 2]


@pytest.mark.parametrize(("task", "done"), [("linear probe", 600), ("all weights", 200)])
def test_both_stages_resume_to_the_same_bytes(task, done, zeroshot, probed_first, tmp_path):
    """Interrupted in either stage, the same command goes on there, and progress says which stage it is in."""
    folder, _, _, options = probed_first
    output, notes, tasks = tmp_path / "ft.safetensors", [], set()
    options = {**options, "log": tmp_path / "ft.log.jsonl", "note": notes.append}

    def interrupt(what, now, total, unit):
        tasks.add(what.partition(";")[0])
        if what.startswith(task) and now == done:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match=r"run the same command to resume"):
        finetune(zeroshot, "digits", output, **options, progress=interrupt)
    assert task in tasks
    assert not output.exists()
    before = output.with_name("ft-probe.safetensors").exists()
    assert before == (task == "all weights")
    notes.clear()
    report = finetune(zeroshot, "digits", output, **options)
    assert any("of an earlier run of this command" in note for note in notes) == before
    assert any("resuming at step" in note for note in notes)
    for name in ("ft-probe.safetensors", "ft.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert not (tmp_path / "ft.training").exists()
    assert report.resumed == (2 if before else 0)


def test_a_probe_of_other_options_is_trained_again(zeroshot, probed_first, tmp_path):
    """Its record differs; and so it is with --restart, whatever the record says."""
    folder, _, _, options = probed_first
    changed, notes = tmp_path / "ft-probe.safetensors", []
    changed.write_bytes((folder / "ft-probe.safetensors").read_bytes())
    other = {**options, "lp_lr": 0.01, "log": None, "note": notes.append}
    finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **other)
    assert record(changed)["lr"] == 0.01
    assert not any("earlier run" in note for note in notes)
    finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **other)
    assert any("earlier run" in note for note in notes)
    notes.clear()
    finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **other, restart=True)
    assert not any("earlier run" in note for note in notes)


def test_a_probe_that_changed_under_a_saved_state_is_refused(zeroshot, probed_first, tmp_path):
    """The state of the second stage belongs to the probe that it started from."""
    _, _, _, options = probed_first
    output = tmp_path / "ft.safetensors"

    def interrupt(what, now, total, unit):
        if what.startswith("all weights") and now == 200:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        finetune(zeroshot, "digits", output, **{**options, "log": None}, progress=interrupt)
    (tmp_path / "ft-probe.safetensors").unlink()
    with pytest.raises(UsageError, match=r"other options .*lp_ft: .*0\.02.*0\.5.*zeroshot: "):
        finetune(zeroshot, "digits", output, **{**options, "log": None, "lp_lr": 0.5})


def test_validation_of_the_second_stage_mixes_with_the_zero_shot_model(zeroshot, cache, tmp_path):
    """At alpha 0.5 it counts what a sweep of the two ends of the command counts."""
    options = {**QUICK, "lp_ft": True, "cache": cache, "lp_lr": 0.05, "validate": "digits-small"}
    report = finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **options)
    swept = sweep(zeroshot, tmp_path / "ft.safetensors", alphas=(0.5, 1.0), suite="digits-small").records
    counts = {record.alpha: (record.correct, record.total) for record in swept}
    assert report.epochs[-1].validation.merged.shifts == (counts[0.5],)
    assert report.epochs[-1].validation.finetuned.shifts == (counts[1.0],)


def test_a_long_probe_fits_as_a_logistic_regression_does(zeroshot, cache, tmp_path):
    """Its mean NLL is between those of scikit-learn's regressions with little and with almost no regularisation."""
    stages = {"lp_ft": True, "lp_epochs": 100, "lp_lr": 3, "new_head": True, "weight_decay": 0, "clip": 0}
    report = finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK, **stages, cache=cache)
    (features,) = [
        each for path in cache.rglob("*") if path.is_file() and len(each := load_file(path)["values"]) == 797
    ]
    head, labels = load_file(report.probe), torch.from_numpy(train_images().labels)
    logits = features.double() @ head["classification_head.weight"].double().T + head["classification_head.bias"]
    found = torch.nn.functional.cross_entropy(logits, labels).item()
    little, none = (
        log_loss(labels, LogisticRegression(C=c, max_iter=1000).fit(features, labels).predict_proba(features))
        for c in (100, 1e4)
    )
    assert none < found < little < np.log(10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lp_ft": True, "linear": True}, r"`lp_ft` trains the head first .*`linear`"),
        ({"lp_ft": True, "objective": "contrastive"}, r"`lp_ft` trains the head first .*`objective`"),
        ({"lp_epochs": 2}, r"`lp_epochs` is an option of the first stage"),
        ({"lp_lr": 0.1}, r"`lp_lr` is an option of the first stage"),
        ({"lp_ft": True, "lp_lr": 20.0}, r"`weight_decay` 0\.1 with a learning rate of 20"),
        ({"anchor": 40_000}, r"`anchor` 40000 with a learning rate of 3e-05.* undo all steps"),
        ({"anchor": -1}, r"`anchor` -1: expected at least 0"),
        ({"shots": 0}, r"`shots` 0: expected at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options, says, tmp_path):
    """By name, before the checkpoint is opened."""
    with pytest.raises(UsageError, match=says):
        finetune(tmp_path / "missing", "digits", tmp_path / "ft.safetensors", **options)


def test_the_probe_does_not_replace_an_input(tmp_path):
    """A checkpoint that has the probe's name is not overwritten."""
    source = save_tiny(tmp_path / "ft-probe.safetensors")
    before = source.read_bytes()
    with pytest.raises(OutputError, match="one of the inputs"):
        finetune(source, "digits", tmp_path / "ft.safetensors", **QUICK, lp_ft=True)
    assert source.read_bytes() == before


def test_a_recipe_has_these_options(tmp_path):
    """Its fine-tuning has both stages, and is done again if the number of images changes."""
    save_tiny(tmp_path / "zs.safetensors")
    text = (
        'folder = "out"\nworkers = 0\n[finetune]\ncheckpoint = "zs.safetensors"\ntrain = "digits"\nepochs = 1\n'
        'lr = 1e-3\nlp-ft = true\nlp-lr = 0.01\nanchor = 3\nshots = 9\naugment = "none"\ncache = "cache"\n'
        'track = ["tensorboard"]\n[sweep]\nsuite = "digits-small"\nalphas = "0,1"\nlimit = 20\n'
    )
    (tmp_path / "recipe.toml").write_text(text)
    assert recipe(tmp_path / "recipe.toml").done == ("finetune", "sweep")
    recorded = record(tmp_path / "out" / "finetuned.safetensors")
    assert (recorded["anchor"], recorded["shots"], recorded["lp_ft"]) == (3, 9, {"epochs": 1, "lr": 0.01})
    assert recipe(tmp_path / "recipe.toml").done == ()
    (tmp_path / "recipe.toml").write_text(text.replace("shots = 9", "shots = 8"))
    assert recipe(tmp_path / "recipe.toml").done == ("finetune", "sweep")


def test_an_anchor_keeps_the_weights_near_their_start(zeroshot, tmp_path):
    """The stronger it is, the nearer; frozen tensors keep their bytes, and the record has the number."""
    start, moved = load_file(zeroshot), []
    for anchor in (0, 30, 300):
        output = tmp_path / f"{anchor}.safetensors"
        finetune(zeroshot, "digits", output, **{**QUICK, "epochs": 2}, anchor=anchor, freeze="visual.proj")
        weights = load_file(output)
        assert torch.equal(weights["visual.proj"], start["visual.proj"])
        assert record(output).get("anchor", 0) == anchor
        moved.append(sum((weights[name] - tensor).square().sum().item() for name, tensor in start.items()))
    assert moved[0] > 1.1 * moved[1] > 1.2 * moved[2] > 0


@pytest.mark.parametrize("more", [{}, {"lp_ft": True, "lp_epochs": 1}])
def test_an_anchored_run_resumes_to_the_same_bytes(more, zeroshot, cache, tmp_path):
    """The start is read from the checkpoint again; with averages, layer-wise decay and small micro-batches."""
    options = {**QUICK, "anchor": 50, "ema": 0.6, "layer_decay": 0.8, "micro_batch": 64, "epochs": 2, "shots": 60}
    options |= {"cache": cache, **more}

    def interrupt(what, now, total, unit):
        if what.startswith(("fine-tuning", "all weights")) and now == 800:
            os.kill(os.getpid(), signal.SIGINT)

    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    finetune(zeroshot, "digits", whole, **options)
    with pytest.raises(Stopped, match="step 5/6"):
        finetune(zeroshot, "digits", parts, **options, progress=interrupt)
    with pytest.raises(UsageError, match=r"anchor: 50\.0 before, 60\.0 now"):
        finetune(zeroshot, "digits", parts, **{**options, "anchor": 60})
    with pytest.raises(UsageError, match="shots: 60 before, 61 now"):
        finetune(zeroshot, "digits", parts, **{**options, "shots": 61})
    assert finetune(zeroshot, "digits", parts, **options).resumed == 5
    assert parts.read_bytes() == whole.read_bytes()
    save_tiny(tmp_path / "other.safetensors", seed=4)
    with pytest.raises(Stopped):
        finetune(zeroshot, "digits", parts, **options, progress=interrupt)
    with pytest.raises(UsageError, match="zeroshot: "):
        finetune(tmp_path / "other.safetensors", "digits", parts, **options)


def save_folders(folder: Path, counts: dict[int, int]) -> Path:
    """Images of the digits in class folders, so many of each."""
    part = train_images()
    for digit, count in counts.items():
        (folder / f"class{digit}").mkdir(parents=True)
        for index in np.flatnonzero(part.labels == digit)[:count]:
            Image.fromarray(part.pixels[index]).convert("RGB").save(folder / f"class{digit}" / f"{index}.png")
    return folder


def test_a_few_images_of_each_class_are_trained_on(cache, tmp_path):
    """Their number and a class with fewer are in the notes; more of them are another run."""
    source, notes = save_tiny(tmp_path / "zs.safetensors", classes=2), []
    folder = save_folders(tmp_path / "train", {0: 9, 1: 3})
    options = {**QUICK, "note": notes.append, "shots": 5}
    report = finetune(source, folder, tmp_path / "ft.safetensors", **options)
    assert report.images == 8
    assert "train: 8 of 12 images drawn, 5 of each class" in notes
    assert "train: 1 of 2 classes have fewer than 5 images: class1 (3)" in notes
    recorded = record(tmp_path / "ft.safetensors")
    assert (recorded["shots"], recorded["data"]["images"]) == (5, 8)
    again = finetune(
        source,
        folder,
        tmp_path / "head.safetensors",
        **{**QUICK, "batch_size": 2},
        linear=True,
        cache=cache,
        shots=1,
    )
    assert (again.images, again.steps) == (2, 1)


def test_the_second_stage_has_the_model_of_the_first(cache, tmp_path):
    """Of timm, with a new head: as by hand, where the probe records the model."""
    source, probe, output = (tmp_path / f"{name}.safetensors" for name in ("zs", "lp", "by-hand"))
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), source)
    model = {"model": "timm:test_vit", "new_head": True}
    shared = {"batch_size": 20, "workers": 0, "shots": 2, "epochs": 1}
    finetune(source, "digits", probe, **shared, **model, linear=True, cache=cache)
    finetune(probe, "digits", output, **shared)
    report = finetune(source, "digits", tmp_path / "ft.safetensors", **shared, **model, lp_ft=True, cache=cache)
    by_hand, found = load_file(output), load_file(report.output)
    assert by_hand.keys() == found.keys()
    assert all(torch.equal(by_hand[name], tensor) for name, tensor in found.items())
    with safe_open(output, "pt") as one, safe_open(report.output, "pt") as other:
        first, second = one.metadata(), other.metadata()
    assert {k: v for k, v in first.items() if k != FINETUNED} == {k: v for k, v in second.items() if k != FINETUNED}


def test_the_printed_command_names_a_pair(cache, tmp_path, wise, monkeypatch):
    """The zero-shot model and the output; with a new head, which the former lacks, the probe and the output."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "zs.safetensors")
    words = ("finetune", "zs.safetensors", "--train", "digits", "-o", "ft.safetensors", "--lp-ft", "--shots", 3)
    for more, start in (((), "zs.safetensors"), (("--new-head",), "ft-probe.safetensors")):
        result = wise(*words, "--epochs", 1, "--workers", 0, "--cache", cache, *more)
        assert result.exit_code == 0, result.stderr
        command = result.stdout.strip().splitlines()[-1].split()
        assert command[:4] == ["wise", "sweep", start, "ft.safetensors"]
    printed = json.loads(wise(*words, "--epochs", 1, "--workers", 0, "--cache", cache, "--json").stdout)
    assert printed["probe"] == "ft-probe.safetensors"

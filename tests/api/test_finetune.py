"""Fine-tuning small models on the built-in digits: it learns, resumes, and refuses what cannot work."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from open_clip import CLIP, SimpleTokenizer
from open_clip.loss import SigLipLoss
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.data import resolve_data_config
from transformers import CLIPConfig, CLIPModel

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.finetune import Stopped, finetune
from mergekit_wise.api.sweep import sweep
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.digits import open_digits, train_images
from mergekit_wise.errors import ModelError, NonFiniteError, OutputError, SuiteError, UsageError
from mergekit_wise.models.opening import open_model
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training import resuming
from mergekit_wise.training.checkpointer import load_state, save_state
from mergekit_wise.training.data import open_training_data
from mergekit_wise.training.images import InMemory
from mergekit_wise.training.loop import TrainingLoop
from mergekit_wise.training.objectives import Supervised
from mergekit_wise.training.optimizer import optimization
from mergekit_wise.training.trainable import open_trainable
from tests.training.fakes import CONFIG, save_tiny, tiny_state

QUICK = {"epochs": 2, "batch_size": 64, "lr": 3e-3, "augment": "none", "workers": 0}
ROOT = Path(__file__).parents[2]


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
def tuned(zeroshot, tmp_path_factory):
    """The output of a short run, with its log beside it."""
    output = tmp_path_factory.mktemp("ft") / "ft.safetensors"
    finetune(zeroshot, "digits", output, **QUICK, log=output.with_name("log.jsonl"))
    return output


def accuracy(checkpoint, **options):
    (record,) = (r for r in evaluate(checkpoint, "digits", limit=100, **options).records if r.role == "reference")
    return record.accuracy


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_end_to_end_beats_zero_shot_on_the_reference(zeroshot, tmp_path):
    """Six epochs over 797 images raise the accuracy from chance to more than 75 %."""
    output = tmp_path / "ft.safetensors"
    report = finetune(zeroshot, "digits", output, **{**QUICK, "epochs": 6})
    before, after = accuracy(zeroshot), accuracy(output)
    assert before < 0.3
    assert after > 0.75
    assert (report.steps, report.images, report.classes) == (78, 797, 10)
    assert [epoch.number for epoch in report.epochs] == [1, 2, 3, 4, 5, 6]
    assert report.epochs[-1].accuracy > 0.75 > report.epochs[0].accuracy


def test_the_output_is_the_source_with_trained_weights(zeroshot, tuned):
    """Names, shapes, dtypes and metadata stay, the provenance is recorded, and no other file is left."""
    before, after = load_file(zeroshot), load_file(tuned)
    assert [(n, t.shape, t.dtype) for n, t in before.items()] == [(n, t.shape, t.dtype) for n, t in after.items()]
    assert all(not torch.equal(before[name], after[name]) for name in before)
    with safe_open(zeroshot, "pt") as old, safe_open(tuned, "pt") as new:
        metadata = new.metadata()
        assert {key: metadata[key] for key in old.metadata() if key != "format"} == {
            "open_clip_config": json.dumps(CONFIG)
        }
    origin = json.loads(metadata["mergekit_wise_finetune"])
    assert (origin["lr"], origin["data"]["images"], origin["data"]["name"]) == (3e-3, 797, "digits-train")
    assert sorted(path.name for path in tuned.parent.iterdir()) == ["ft.safetensors", "log.jsonl"]


def test_the_log_has_every_step_and_epoch(tuned):
    """The log has the loss, the accuracy, the learning rate and the gradient norm of each step, and each epoch."""
    lines = entries(tuned.with_name("log.jsonl"))
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 27))
    assert all(line["loss"] > 0 and 0 <= line["accuracy"] <= 1 and line["gradient_norm"] > 0 for line in steps)
    assert max(line["learning_rate"] for line in steps) == pytest.approx(3e-3)
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    seen = sum(line["accuracy"] * (64 if line["step"] % 13 else 29) for line in steps[13:])
    assert epochs[1]["accuracy"] == pytest.approx(seen / 797)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_bytes(workers, zeroshot, tmp_path, augmented):
    """The same seed gives the same bytes with any number of workers, and another seed gives others."""
    finetune(
        zeroshot,
        "digits",
        tmp_path / "ft.safetensors",
        **{**QUICK, "epochs": 1, "augment": "strong", "workers": workers},
    )
    assert (tmp_path / "ft.safetensors").read_bytes() == augmented


@pytest.fixture(scope="module")
def augmented(zeroshot, tmp_path_factory):
    """The bytes of a run with strong augmentation, checked to differ from those of another seed."""
    output = tmp_path_factory.mktemp("strong") / "ft.safetensors"
    options = {**QUICK, "epochs": 1, "augment": "strong"}
    finetune(zeroshot, "digits", output, **options, seed=1)
    other = output.read_bytes()
    finetune(zeroshot, "digits", output, **options)
    assert output.read_bytes() != other
    return output.read_bytes()


@pytest.mark.parametrize(("asked", "step"), [(4, 5), (13, 13)])
def test_an_interrupted_run_resumes_to_the_same_bytes(asked, step, zeroshot, tuned, tmp_path):
    """A run interrupted within or after an epoch resumes to the same bytes and the same log."""
    output, log = tmp_path / "ft.safetensors", tmp_path / "log.jsonl"

    def interrupt(what, done, total, unit):
        if unit == "images" and done == min(asked * 64, 797):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match=rf"step {step}/26.*ft\.training"):
        finetune(zeroshot, "digits", output, **QUICK, log=log, progress=interrupt)
    assert not output.exists()
    with log.open("a") as file:
        file.write('{"event": "step", "step": 21}\n{"event": "st')
    report = finetune(zeroshot, "digits", output, **QUICK, log=log)
    assert report.resumed == step
    assert output.read_bytes() == tuned.read_bytes()
    timeless = [
        [{k: v for k, v in line.items() if "second" not in k} for line in entries(path)]
        for path in (log, tuned.with_name("log.jsonl"))
    ]
    assert timeless[0] == timeless[1]
    assert sum(line["event"] == "epoch" for line in timeless[0]) == 2


class Killed(Exception):
    """The end of a process, as far as a test can have it."""


@pytest.fixture
def killed(zeroshot, tmp_path):
    """The output of a run that was killed after step 5, and saved its state after each step."""
    output = tmp_path / "ft.safetensors"

    def kill(what, done, total, unit):
        if unit == "images" and done == 5 * 64:
            raise Killed

    with pytest.raises(Killed):
        finetune(zeroshot, "digits", output, **QUICK, log=tmp_path / "log.jsonl", progress=kill, save_every=1e-9)
    return output


def test_a_killed_run_loses_what_followed_its_last_save(zeroshot, tuned, killed):
    """With --save-every, it resumes within the epoch to the same bytes and log, also if with --grad-checkpointing."""
    log = killed.with_name("log.jsonl")
    report = finetune(zeroshot, "digits", killed, **QUICK, log=log, grad_checkpointing=True)
    assert report.resumed == 4
    assert killed.read_bytes() == tuned.read_bytes()
    timeless = [
        [{k: v for k, v in line.items() if "second" not in k} for line in entries(path)]
        for path in (log, tuned.with_name("log.jsonl"))
    ]
    assert timeless[0] == timeless[1]


def test_a_resumed_run_keeps_the_precision_that_it_began_with(zeroshot, killed):
    """Where --precision auto is another on the machine that resumes, the first one is kept, and a note says so."""
    path = killed.with_name("ft.training") / "state.safetensors"
    tensors, facts = load_state(path)
    assert facts["chosen"] == {"precision": "fp32", "compiled": False}
    save_state(path, tensors, {**facts, "chosen": {"precision": "bf16", "compiled": False}})
    notes = []

    def kill(what, done, total, unit):
        if unit == "images" and done == 6 * 64:
            raise Killed

    with pytest.raises(Killed):
        finetune(zeroshot, "digits", killed, **QUICK, save_every=1e-9, progress=kill, note=notes.append)
    assert any(note.startswith("precision bf16, with which the run began") for note in notes)
    tensors, facts = load_state(path)
    assert (facts["step"], facts["chosen"]["precision"]) == (5, "bf16")


def test_a_run_that_cannot_be_compiled_says_so_and_stays_as_it_is(zeroshot, tuned, tmp_path, monkeypatch):
    """Without a compiler the weights are those without --compile; a run that began compiled is not resumed without."""
    monkeypatch.setattr(resuming, "why_not_compiled", lambda device: "No working C++ compiler found.")
    output = tmp_path / "ft.safetensors"
    report = finetune(zeroshot, "digits", output, **QUICK, compile=True)
    assert any("not compiled" in note and "C++ compiler" in note for note in report.notes)
    found, expected = load_file(output), load_file(tuned)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    output.with_name("ft.training").mkdir()
    save_state(output.with_name("ft.training") / "state.safetensors", expected, {"chosen": {"compiled": True}})
    with pytest.raises(UsageError, match="compile.*began with a compiled model.*restart"):
        finetune(zeroshot, "digits", output, **QUICK, compile=True)


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_bytes(tmp_path):
    """Torch's own compiler: the loss is that of an ordinary run but for rounding, stopped within an epoch or not.

    The model has a single layer, because the compiler takes its time for each.
    """
    zeroshot = save_tiny(tmp_path / "zs.safetensors", layers=1)
    whole, stopped, log = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors", tmp_path / "log.jsonl"
    finetune(zeroshot, "digits", tmp_path / "usual.safetensors", **QUICK, log=tmp_path / "usual.jsonl")
    report = finetune(zeroshot, "digits", whole, **QUICK, compile=True, log=log)
    assert not any("not compiled" in note for note in report.notes)
    last, usual = entries(log)[-1], entries(tmp_path / "usual.jsonl")[-1]
    assert last["loss"] == pytest.approx(usual["loss"], rel=1e-2)

    def interrupt(what, done, total, unit):
        if unit == "images" and done == 12 * 64:  # so that the first batch after it is the smaller one
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        finetune(zeroshot, "digits", stopped, **QUICK, compile=True, progress=interrupt)
    torch.compiler.reset()
    finetune(zeroshot, "digits", stopped, **QUICK, compile=True)
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(zeroshot, tmp_path):
    """After SIGKILL in the third epoch a run with most options resumes to the same bytes and draws each point once."""
    options = {
        **QUICK,
        "epochs": 4,
        "augment": "crop",
        "ema": 0.95,
        "mixup": 0.2,
        "label_smoothing": 0.1,
        "layer_decay": 0.8,
        "anchor": 5,
        "shots": 70,
        "lp_lr": 0.01,
        "track": "tensorboard",
        "cache": tmp_path / "cache",
    }
    words = ["--lp-ft", *(f"--{key.replace('_', '-')}={value}" for key, value in options.items())]
    killed, whole = tmp_path / "killed" / "ft.safetensors", tmp_path / "whole" / "ft.safetensors"
    for output in (killed, whole):
        output.parent.mkdir()
    command = [sys.executable, "-m", "mergekit_wise", "finetune", zeroshot, "--train=digits", "-o", killed, *words]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=alone, stderr=subprocess.DEVNULL) as running:
        log = killed.with_name("ft.log.jsonl")
        wait_for(lambda: log.exists() and '"epoch": 3' in log.read_text(), running)
        running.kill()
    assert not killed.exists()
    assert killed.with_name("ft.training").is_dir()
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ft.training" in done.stderr
    finetune(zeroshot, "digits", whole, **options, lp_ft=True)
    assert killed.read_bytes() == whole.read_bytes()
    assert not killed.with_name("ft.training").exists()
    for name, steps in (("ft-probe", 44), ("ft", 44)):
        curves = EventAccumulator(str(killed.with_name(f"{name}.tensorboard")))
        curves.Reload()
        assert [event.step for event in curves.Scalars("training/loss")] == list(range(1, steps + 1))


def wait_for(happened, running):
    for _ in range(2400):
        if happened():
            return
        assert running.poll() is None, "ended by itself"
        time.sleep(0.05)
    pytest.fail("took too long")


def test_an_interrupted_command_names_its_saved_state(zeroshot, tmp_path, wise, monkeypatch):
    """An interrupted command exits with code 143 and names its saved state; run again, it finishes."""
    steps = TrainingLoop.steps

    def interrupted(self):
        for step in steps(self):
            if step.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    output = tmp_path / "ft.safetensors"
    words = (
        "finetune",
        zeroshot,
        "--train",
        "digits",
        "-o",
        output,
        "--epochs",
        1,
        "--batch-size",
        200,
        "--augment",
        "none",
    )
    monkeypatch.setattr(TrainingLoop, "steps", interrupted)
    result = wise(*words)
    assert result.exit_code == 143
    assert "step 4/4" in result.stderr
    assert "ft.training" in result.stderr
    result = wise(*words, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["steps"], printed["resumed"]) == (4, 4)
    assert output.exists()


def test_the_state_of_another_run_is_not_resumed(zeroshot, tmp_path):
    """A saved state of other options is refused with the differences, and `restart` discards it."""
    output = tmp_path / "ft.safetensors"

    def interrupt(what, done, total, unit):
        if done == 64:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        finetune(zeroshot, "digits", output, **QUICK, progress=interrupt)
    other = {**QUICK, "epochs": 1, "lr": 1e-3}
    with pytest.raises(UsageError, match=r"epochs: 2 before, 1 now; lr: 0\.003 before, 0\.001 now.*restart"):
        finetune(zeroshot, "digits", output, **other)
    assert finetune(zeroshot, "digits", output, **other, restart=True).resumed == 0


def test_a_run_of_other_features_or_preprocessing_is_not_resumed(tmp_path):
    """The same weights applied to other features, or to images prepared in another way, are another run."""
    state = tiny_state()
    tower = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    source, head, output = (tmp_path / f"{name}.safetensors" for name in ("zs", "head", "ft"))
    save_file(tower, source, {"open_clip_config": json.dumps(CONFIG)})
    save_file({part: state[f"classification_head.{part}"] for part in ("weight", "bias")}, head)

    def interrupt(what, done, total, unit):
        if done == 64:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        finetune(source, "digits", output, **QUICK, head=head, head_features="raw", progress=interrupt)
    with pytest.raises(UsageError, match="features not normalised before"):
        finetune(source, "digits", output, **QUICK, head=head, head_features="normalized")
    other = {**CONFIG, "preprocess_cfg": {**CONFIG["preprocess_cfg"], "mean": [0.4] * 3}}
    save_file(tower, source, {"open_clip_config": json.dumps(other)})
    with pytest.raises(UsageError, match=r"preprocess: .*0\.5.* before, .*0\.4.* now"):
        finetune(source, "digits", output, **QUICK, head=head, head_features="raw")


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(zeroshot, tmp_path, monkeypatch):
    """A loss of NaN stops the run; the error names the step and the usable checkpoint of the last epoch."""
    backward, calls = Supervised.backward, []

    def broken(self, part, images, seed):
        calls.append(1)
        tally = backward(self, part, images, seed)
        return replace(tally, loss=tally.loss * float("nan")) if len(calls) == 17 else tally

    monkeypatch.setattr(Supervised, "backward", broken)
    with pytest.raises(NonFiniteError, match=r"step 17/26 \(epoch 2\).*ft\.training/epoch-1\.safetensors.*lr"):
        finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK)
    assert not (tmp_path / "ft.safetensors").exists()
    assert accuracy(tmp_path / "ft.training" / "epoch-1.safetensors") > accuracy(zeroshot)


def test_a_head_of_other_classes_is_refused(tmp_path):
    """A head of other classes, or none, is refused with the command that makes the right one."""
    seven = save_tiny(tmp_path / "seven.safetensors", classes=7)
    with pytest.raises(ModelError, match=r"10 classes.* 7\..*wise zeroshot .* --classes .*zero, one, two"):
        finetune(seven, "digits", tmp_path / "ft.safetensors", **QUICK)
    headless = tmp_path / "headless.safetensors"
    save_file(
        {n: t for n, t in tiny_state().items() if "head" not in n}, headless, {"open_clip_config": json.dumps(CONFIG)}
    )
    with pytest.raises(ModelError, match=r"no classification head.*wise zeroshot .*headless\.safetensors --classes"):
        finetune(headless, "digits", tmp_path / "ft.safetensors", **QUICK)


def test_the_heads_class_names_must_be_the_datas(tmp_path):
    """Class names in the head's metadata must be the data's; in another order they are mapped by name."""
    for names, fits in ((["null", "one"], False), (["one", "zero"], True), (["zero", "one"], True)):
        state = {n: t for n, t in tiny_state().items() if n.startswith(("visual.", "classification"))}
        rest = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
        metadata = {"open_clip_config": json.dumps(CONFIG), "classnames": json.dumps([*names, *rest])}
        save_file(state, tmp_path / "zs.safetensors", metadata)
        if fits:
            finetune(tmp_path / "zs.safetensors", "digits", tmp_path / "ft.safetensors", **{**QUICK, "epochs": 1})
            continue
        with pytest.raises(ModelError, match=r"1 of its 10 classes .*'zero'.*'null'"):
            finetune(tmp_path / "zs.safetensors", "digits", tmp_path / "ft.safetensors", **QUICK)


def test_frozen_tensors_keep_their_bytes(tmp_path):
    """Frozen tensors keep their bytes and dtype, and trained ones of half precision become float32."""
    state = {n: t for n, t in tiny_state().items() if n.startswith(("visual.", "classification"))}
    half = {name: tensor.half() for name, tensor in state.items()}
    save_file(half, tmp_path / "zs.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    output = tmp_path / "ft.safetensors"
    options = {**QUICK, "epochs": 1, "batch_size": 200}
    finetune(tmp_path / "zs.safetensors", "digits", output, **options, freeze=("visual.transformer.*", "*.bias"))
    after = load_file(output)
    frozen = {name for name in half if name.startswith("visual.transformer.") or name.endswith(".bias")}
    assert {name for name in half if after[name].dtype == torch.float16} == frozen
    assert all(torch.equal(after[name], half[name]) for name in frozen)
    assert all(not torch.equal(after[name], half[name].float()) for name in half.keys() - frozen)
    with pytest.raises(UsageError, match=r"freeze. visaul\.\*"):
        finetune(tmp_path / "zs.safetensors", "digits", output, **options, freeze=("visaul.*",))
    with pytest.raises(UsageError, match=r"freeze. \*"):
        finetune(tmp_path / "zs.safetensors", "digits", output, **options, freeze=("*",))


def test_averaging_with_a_decay_of_0_gives_the_plain_weights(zeroshot, tuned, tmp_path):
    """Averaging with a decay of 0 gives the plain weights, and with 0.9 others."""
    tensors = {}
    for decay in (0.0, 0.9):
        finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK, ema=decay)
        tensors[decay] = load_file(tmp_path / "ft.safetensors")
    expected = load_file(tuned)
    assert all(torch.equal(tensors[0.0][name], tensor) for name, tensor in expected.items())
    assert not torch.equal(tensors[0.9]["visual.proj"], expected["visual.proj"])


def test_validation_measures_the_fine_tuned_and_the_merged_model(zeroshot, tuned, tmp_path):
    """Each epoch validates the fine-tuned and the merged model, and the last numbers are a sweep's."""
    log = tmp_path / "log.jsonl"
    report = finetune(
        zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK, validate="digits-small,digits-faded", log=log
    )
    assert (tmp_path / "ft.safetensors").read_bytes() == tuned.read_bytes()
    validations = [line for line in entries(log) if line["event"] == "validation"]
    assert [line["epoch"] for line in validations] == [1, 2]
    assert "NaN" not in log.read_text()
    swept = sweep(zeroshot, tuned, alphas=(0.5, 1.0), suite="digits-small,digits-faded").records
    assert all(set(line["fine-tuned"]) == {record.title for record in swept} for line in validations)
    for alpha, name in ((0.5, "alpha 0.5"), (1.0, "fine-tuned")):
        measured = {record.title: record.accuracy for record in swept if record.alpha == alpha}
        assert {title: validations[1][name][title] for title in measured} == pytest.approx(measured)
    assert report.epochs[1].validation.finetuned.shifts == tuple((r.correct, r.total) for r in swept if r.alpha == 1.0)


def test_an_interrupted_validation_is_completed_on_resuming(zeroshot, tuned, tmp_path):
    """After an interrupted validation the same call first completes it, and ends with the same bytes."""
    output, log, interrupted = tmp_path / "ft.safetensors", tmp_path / "log.jsonl", []

    def interrupt(what, done, total, unit):
        if what == "Small" and not interrupted:
            interrupted.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    options = {**QUICK, "validate": "digits-small", "log": log}
    with pytest.raises(Stopped, match="step 13/26"):
        finetune(zeroshot, "digits", output, **options, progress=interrupt)
    assert finetune(zeroshot, "digits", output, **options).resumed == 13
    assert [line["epoch"] for line in entries(log) if line["event"] == "validation"] == [1, 2]
    assert output.read_bytes() == tuned.read_bytes()


def test_keeping_the_images_of_no_validation_is_refused(tmp_path):
    """Those of training are not kept, which the message says by naming whose are."""
    with pytest.raises(UsageError, match="`cache_images` keeps the images that `validate` measures"):
        finetune("none.safetensors", "digits", tmp_path / "o.safetensors", cache_images=True)


def test_a_stop_that_another_process_asks_for_ends_all_before_validation(zeroshot, tmp_path, monkeypatch):
    """Otherwise the others would wait in the validation for the process that was stopped."""
    output, log, summed = tmp_path / "ft.safetensors", tmp_path / "log.jsonl", TrainingLoop._summed

    def stopped(loop, *rest):
        loss, correct, images, stops, norm = summed(loop, *rest)
        return loss, correct, images, stops or loop.optimizer.taken == 12, norm

    monkeypatch.setattr(TrainingLoop, "_summed", stopped)
    with pytest.raises(Stopped, match="step 13/26"):
        finetune(zeroshot, "digits", output, **QUICK, validate="digits-small", log=log)
    assert [line["event"] for line in entries(log)][-1] == "epoch"


def test_images_that_a_signal_leaves_undecoded_are_no_damage(zeroshot, tmp_path, monkeypatch):
    """A scheduler signals all processes of a job, and those that decode end at once: the run was stopped."""
    parts = InMemory.parts

    def ending(images, epoch, batches):
        if epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            raise SuiteError("an image-decoding process was killed")
        yield from parts(images, epoch, batches)

    monkeypatch.setattr(InMemory, "parts", ending)
    with pytest.raises(Stopped, match=r"step 13/26\. State saved") as caught:
        finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK)
    assert caught.value.number == signal.SIGTERM


@pytest.fixture(scope="module")
def linear(zeroshot, tmp_path_factory):
    """A folder with a linear classifier trained on cached features, and the cache."""
    folder = tmp_path_factory.mktemp("linear")
    finetune(
        zeroshot,
        "digits",
        folder / "ft.safetensors",
        linear=True,
        epochs=4,
        batch_size=64,
        lr=0.3,
        cache=folder / "cache",
        workers=0,
    )
    return folder


def test_a_linear_sweep_equals_the_output_space_ensemble(zeroshot, linear):
    """For a linear classifier, weight-space counts are those of mixing the outputs, computed by open_clip."""
    first, second = load_file(zeroshot), load_file(linear / "ft.safetensors")
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"classification_head.weight", "classification_head.bias"}
    model = CLIP(**CONFIG["model_cfg"]).eval()
    model.visual.load_state_dict({n.removeprefix("visual."): t for n, t in first.items() if n.startswith("visual.")})
    alphas = (0.0, 0.3, 0.5, 0.8, 1.0)
    records = sweep(zeroshot, linear / "ft.safetensors", alphas=alphas, suite="digits-noisy,digits-inverted").records
    for dataset in open_digits().shifts:
        mine = {r.alpha: r.correct for r in records if r.dataset == dataset.name}
        if mine:
            pixels = np.stack(
                [np.asarray(dataset.image(i).resize((16, 16), Image.Resampling.BICUBIC)) for i in range(1000)]
            )
            images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
            with torch.no_grad():
                features = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
            zs, ft = (
                features @ s["classification_head.weight"].T + s["classification_head.bias"] for s in (first, second)
            )
            for alpha in alphas:
                right = ((1 - alpha) * zs + alpha * ft).argmax(1).numpy() == dataset.labels
                assert abs(int(right.sum()) - mine[alpha]) <= 1  # the two round differently
    assert len(records) == 2 * len(alphas)


def test_features_are_computed_once(zeroshot, linear, tmp_path):
    """A second run uses the cached features and gives the same bytes; a damaged cache file is computed anew."""
    notes = []
    again = {"linear": True, "epochs": 4, "batch_size": 64, "lr": 0.3, "cache": linear / "cache", "workers": 0}
    output = tmp_path / "ft.safetensors"
    finetune(zeroshot, "digits", output, **again, note=notes.append)
    (kept,) = (linear / "cache" / "features").iterdir()
    assert any(str(kept) in text for text in notes)
    assert output.read_bytes() == (linear / "ft.safetensors").read_bytes()
    damaged = tmp_path / "cache" / "features" / kept.name
    damaged.parent.mkdir(0o700, parents=True)
    content = bytearray(kept.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    notes.clear()
    finetune(zeroshot, "digits", output, **{**again, "cache": tmp_path / "cache"}, note=notes.append)
    assert not any("cached features" in text for text in notes)
    assert output.read_bytes() == (linear / "ft.safetensors").read_bytes()
    assert damaged.read_bytes() == kept.read_bytes()


@pytest.fixture
def folders(tmp_path):
    """Sixteen images of the digits 0 and 1 in class folders."""
    part = train_images()
    for index in np.flatnonzero(part.labels < 2)[:16]:
        path = tmp_path / "train" / f"class{part.labels[index]}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part.pixels[index]).convert("RGB").save(path, compress_level=0)
    return tmp_path / "train"


def test_the_cache_notices_changed_images_and_weights(folders, tmp_path):
    """Changed images and weights are computed anew, even if an image keeps its size and modification time."""
    source = save_tiny(tmp_path / "zs.safetensors", classes=2)
    cache, notes = tmp_path / "cache", []

    def computed():
        notes.clear()
        finetune(
            source,
            folders,
            tmp_path / "ft.safetensors",
            linear=True,
            epochs=1,
            cache=cache,
            workers=0,
            note=notes.append,
        )
        return not any("cached features" in text for text in notes)

    assert [computed(), computed()] == [True, False]
    changed, other = sorted(folders.glob("*/*.png"))[:2]
    times, size = changed.stat(), changed.stat().st_size
    content = bytearray(changed.read_bytes())
    shutil.copyfile(other, changed)
    assert changed.stat().st_size == size
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [computed(), computed()] == [True, False]
    changed.write_bytes(content)
    assert computed()
    save_tiny(source, classes=2, seed=1)
    assert [computed(), computed()] == [True, False]


def test_a_folder_of_class_folders_is_training_data(folders, tmp_path):
    """An unreadable image in a folder of classes is an error that names it, unless `max_bad` tolerates it."""
    source = save_tiny(tmp_path / "zs.safetensors", classes=2)
    bad = sorted(folders.glob("*/*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:100])
    output = tmp_path / "ft.safetensors"
    for augment in ("none", "crop-flip"):
        options = {**QUICK, "augment": augment, "batch_size": 8}
        with pytest.raises(SuiteError, match=f"{bad.name}"):
            finetune(source, folders, output, **options, restart=True)
        report = finetune(source, folders, output, **options, max_bad=1, restart=True)
        assert (report.images, report.classes, report.steps) == (15, 2, 4)


def test_a_bad_image_at_the_edge_of_the_limit_has_one_outcome_everywhere(folders, tmp_path):
    """Training, a linear probe and evaluation refuse it in the same words, or name it in the same note and count 15."""
    source = save_tiny(tmp_path / "zs.safetensors", classes=2)
    bad = sorted(folders.glob("*/*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:100])
    probe = {"linear": True, "cache": tmp_path / "cache"}

    def trained(**options):
        notes = []
        options = {"epochs": 2, "batch_size": 8, "restart": True, "workers": 0, "note": notes.append, **options}
        return finetune(source, folders, tmp_path / "ft.safetensors", **options).images, notes

    def measured(**options):
        found = evaluate(source, str(folders), workers=0, **options)
        return found.records[0].total, found.notes

    # The second probe finds its features in the cache.
    runs = [trained, partial(trained, **probe), partial(trained, **probe), measured]
    runs.append(partial(trained, validate=str(folders)))
    refused, named = set(), set()
    for run in runs:
        with pytest.raises(SuiteError) as caught:
            run()
        refused.add(str(caught.value))
        images, notes = run(max_bad=1)
        assert images == 15
        (about,) = [note for note in notes if bad.name in note]
        named.add(about)
    assert len(refused) == len(named) == 1


def test_the_contrastive_objective_trains_both_encoders(tmp_path):
    """Contrastive training changes all weights, resumes, and rebuilds the head from the text encoder."""
    source = save_tiny(tmp_path / "zs.safetensors", text=True)
    output, stopped = tmp_path / "ft.safetensors", tmp_path / "stopped.safetensors"
    options = {**QUICK, "epochs": 1, "lr": 1e-3, "objective": "contrastive", "micro_batch": 40}
    finetune(source, "digits", output, **options)

    def interrupt(what, done, total, unit):
        if done == 5 * 64:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="step 6/12"):
        finetune(source, "digits", stopped, **options, progress=interrupt)
    finetune(source, "digits", stopped, **options)
    assert stopped.read_bytes() == output.read_bytes()
    before, after = load_file(source), load_file(output)
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"classification_head.bias"}
    model = CLIP(**CONFIG["model_cfg"]).eval()
    model.load_state_dict({name: t for name, t in after.items() if "head" not in name})
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    with torch.no_grad():
        tokens = SimpleTokenizer(context_length=8)([f"a photo of a {name}." for name in names])
        expected = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1) * model.logit_scale.exp()
    torch.testing.assert_close(after["classification_head.weight"], expected, rtol=1e-4, atol=1e-4)


def sigmoid_checkpoint(path, scale=4.76, bias=-12.9, **changes):
    """A tiny SigLIP of open_clip's own class, without a head."""
    cfg = {**CONFIG["model_cfg"], "init_logit_bias": -10, **changes}
    torch.manual_seed(0)
    state = CLIP(**cfg).state_dict()
    state |= {"logit_scale": torch.tensor(scale), "logit_bias": torch.tensor(bias)}
    config = {**CONFIG, "model_cfg": cfg}
    save_file({n: t.contiguous() for n, t in state.items()}, path, {"open_clip_config": json.dumps(config)})
    return path


def test_a_sigmoid_model_is_trained_with_its_own_loss(tmp_path):
    """One step over all images is AdamW's on open_clip's sigmoid loss: bias and scale too, which has no bound."""
    source, output = sigmoid_checkpoint(tmp_path / "zs.safetensors"), tmp_path / "ft.safetensors"
    notes = []
    options = {"batch_size": 797, "epochs": 1, "lr": 1e-3, "augment": "none", "warmup": 0, "workers": 0}
    finetune(source, "digits", output, objective="contrastive", templates=["a {}"], note=notes.append, **options)
    assert any("sigmoid loss" in note for note in notes)
    before, after = load_file(source), load_file(output)
    assert before.keys() == after.keys()

    model = CLIP(**CONFIG["model_cfg"], init_logit_bias=-10)
    model.load_state_dict(before)
    part = train_images()
    pixels = np.stack([np.asarray(Image.fromarray(p).resize((16, 16), Image.Resampling.BICUBIC)) for p in part.pixels])
    images = (torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1) / 255 - 0.5) / 0.25
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    tokens = SimpleTokenizer(context_length=8)([f"a {words[label]}" for label in part.labels])
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    features = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
    SigLipLoss()(*features, model.logit_scale.exp(), model.logit_bias).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adamw.step()
    for name, value in model.state_dict().items():
        # The first step of AdamW has the size of the learning rate, up to rounding where the gradient is nearly zero.
        close = (after[name] - value).abs() < 2e-4
        assert close.float().mean() > 0.99, name
    assert after["logit_bias"] != before["logit_bias"]
    assert after["logit_scale"].item() > 4.7, "CLIP's bound is 4.605"


def test_a_scale_above_clips_bound_is_said(tmp_path):
    """It is clamped, and the note names the option that keeps it; frozen, it keeps its bytes."""
    state = {name: tensor for name, tensor in tiny_state().items() if "head" not in name}
    source = tmp_path / "zs.safetensors"
    metadata = {"open_clip_config": json.dumps(CONFIG)}
    save_file(state | {"logit_scale": torch.tensor(4.76)}, source, metadata)
    options = {**QUICK, "epochs": 1, "batch_size": 400, "objective": "contrastive"}
    notes = []
    finetune(source, "digits", tmp_path / "ft.safetensors", **options, note=notes.append)
    assert any("4.76" in note and "--freeze logit_scale" in note for note in notes)
    assert load_file(tmp_path / "ft.safetensors")["logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)
    notes.clear()
    finetune(source, "digits", tmp_path / "kept.safetensors", **options, freeze="logit_scale", note=notes.append)
    assert load_file(tmp_path / "kept.safetensors")["logit_scale"].item() == pytest.approx(4.76)
    assert not any("4.76" in note for note in notes)


def test_a_sigmoid_model_without_its_bias_is_refused(tmp_path):
    """Its configuration shows that the softmax loss would be the wrong one."""
    source = sigmoid_checkpoint(tmp_path / "zs.safetensors")
    state = load_file(source)
    del state["logit_bias"]
    config = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "init_logit_bias": -10}}
    save_file(state, source, {"open_clip_config": json.dumps(config)})
    with pytest.raises(ModelError, match="sigmoid loss, whose logit_bias it does not hold"):
        finetune(source, "digits", tmp_path / "ft.safetensors", **QUICK, objective="contrastive")


def test_templates_without_captions_are_said_to_change_nothing(folders, tmp_path):
    """The bytes are those of the run without them."""
    source, notes = save_tiny(tmp_path / "zs.safetensors", classes=2), []
    for name, more in (("a", {}), ("b", {"templates": ["a {}"], "note": notes.append})):
        finetune(source, folders, tmp_path / f"{name}.safetensors", **QUICK, **more)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert [note for note in notes if note.startswith("--templates is for the captions")]


def test_contrastive_training_refuses_a_head_of_other_classes(folders, tmp_path):
    """A head of other classes than the data's is refused, because contrastive training would replace it."""
    source = save_tiny(tmp_path / "zs.safetensors", text=True)
    with pytest.raises(ModelError, match="2 classes.* 10\\..*wise zeroshot"):
        finetune(source, folders, tmp_path / "ft.safetensors", **QUICK, objective="contrastive")


def test_contrastive_training_needs_a_text_encoder(zeroshot, tmp_path):
    """Contrastive training refuses a checkpoint without a text encoder."""
    with pytest.raises(ModelError, match="text tower"):
        finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK, objective="contrastive")


@pytest.mark.parametrize(
    "config",
    [
        {
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
            }
        },
    ],
)
def test_trained_weights_return_to_hugging_faces_names(config, tmp_path):
    """Weights return to Hugging Face's split queries, keys and values, unchanged ones bit for bit."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, projection_dim=8, **config)).save_pretrained(tmp_path / "hf")
    source = open_checkpoint(tmp_path / "hf")
    request = FinetuneOptions(tmp_path / "hf", "digits", tmp_path / "out", objective="contrastive")
    trainable = open_trainable(source, open_training_data(request)[0], request)
    moved = {name: parameter + 1 for name, parameter in trainable.parameters.items()}
    for weights, change in ((trainable.parameters, 0), (moved, 1)):
        found = trainable.checkpoint(weights)
        assert found.keys() == source.tensors.keys()
        for name, (info, storage) in found.items():
            expected = source.read(name) + (np.float32(change) if source.info(name).dtype.kind == "float" else 0)
            assert info == source.info(name)
            np.testing.assert_array_equal(np.asarray(storage).reshape(-1), expected)


@pytest.mark.parametrize("linear", [False, True])
def test_a_timm_classifier_is_fine_tuned(linear, tmp_path):
    """All weights of a timm classifier are trained under their own names, and with `linear` only the last layer."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=10).state_dict()
    save_file(state, tmp_path / "zs.safetensors")
    output = tmp_path / "ft.safetensors"
    options = {
        "epochs": 1,
        "batch_size": 400,
        "lr": 1e-2,
        "model": "timm:test_vit",
        "workers": 0,
        "cache": tmp_path / "cache",
    }
    finetune(tmp_path / "zs.safetensors", "digits", output, **options, linear=linear)
    after = load_file(output)
    moved = {name for name in state if not torch.equal(state[name], after[name])}
    assert moved == ({"head.weight", "head.bias"} if linear else set(state))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "`epochs` 0: expected at least 1"),
        ({"lr": -1.0}, "`lr`"),
        ({"lr": float("nan")}, "`lr`"),
        ({"lr": 0}, "`lr` 0: expected above 0"),
        ({"lr": float("inf")}, "`lr` inf: expected a finite number"),
        ({"weight_decay": float("inf")}, "`weight_decay` inf: expected a finite number"),
        ({"weight_decay": 40_000}, "erase the weights"),
        ({"clip": float("nan")}, "`clip`"),
        ({"decay": "biases"}, "all, matrices"),
        ({"ema": 1.0}, "`ema` 1.0: expected at least 0 and below 1"),
        ({"layer_decay": 0}, "`layer_decay` 0: expected above 0 and at most 1"),
        ({"label_smoothing": 1}, "`label_smoothing` 1: expected at least 0 and below 1"),
        ({"label_smoothing": 1.5}, "`label_smoothing`"),
        ({"mixup": float("inf")}, "`mixup` inf: expected a finite number"),
        ({"batch_size": 1}, "`batch_size`"),
        ({"micro_batch": 0}, "`micro_batch`"),
        ({"augment": "wild"}, "none, crop, crop-flip, strong"),
        ({"objective": "triplet"}, "cross-entropy, contrastive"),
        ({"linear": True, "augment": "crop"}, "`augment`"),
        ({"linear": True, "freeze": ("a",)}, "`freeze`"),
        ({"linear": True, "objective": "contrastive"}, "`objective`"),
        ({"objective": "contrastive", "mixup": 0.1}, "no labels"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_opened(options, says, tmp_path):
    """Invalid options are refused by name before the checkpoint is opened."""
    with pytest.raises(UsageError, match=says):
        finetune(tmp_path / "missing", "digits", tmp_path / "ft.safetensors", **options)


@pytest.mark.parametrize("warmup", [26, 10**9])
def test_a_run_that_ends_while_it_warms_up_is_refused(warmup, zeroshot, tmp_path):
    """The learning rate would not pass its peak; one step fewer is accepted."""
    with pytest.raises(UsageError, match=r"the run has 26 steps.* default is 10 %"):
        finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **QUICK, warmup=warmup)
    assert optimization(FinetuneOptions("zs", "digits", "ft", warmup=25), 64, 26).warmup == 25


def test_what_differs_from_the_request_is_said(zeroshot, tmp_path):
    """Notes name a batch of fewer images, an average that barely moves, and what decays; so does the log."""
    notes, log = [], tmp_path / "log.jsonl"
    options = {**QUICK, "epochs": 1, "batch_size": 5000, "ema": 0.99}
    finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **options, note=notes.append, log=log)
    said = "\n".join(notes)
    assert "batch size: 797" in said
    assert "moving average keeps 99 % of the zero-shot weights" in said
    assert "weight decay 0.1 on all trained parameters" in said
    run = entries(log)[0]
    assert (run["event"], run["weight_decay"], run["decay"], run["clip"]) == ("run", 0.1, "all", 1.0)
    notes.clear()
    options = {**QUICK, "epochs": 1, "decay": "matrices"}
    finetune(zeroshot, "digits", tmp_path / "ft.safetensors", **options, note=notes.append, log=log)
    assert any("on matrices and kernels, not on gains and biases" in note for note in notes)
    assert entries(log)[0]["decay"] == "matrices"


def test_without_clipping_a_run_learns(zeroshot, tmp_path):
    """A clip of 0 is no clipping, rather than gradients of zero: it learns as a very high bound does, to the byte."""
    outputs = []
    for clip in (0, 1e9):
        finetune(zeroshot, "digits", tmp_path / f"{clip}.safetensors", **{**QUICK, "epochs": 1}, clip=clip)
        outputs.append(load_file(tmp_path / f"{clip}.safetensors"))
    assert all(torch.equal(tensor, outputs[1][name]) for name, tensor in outputs[0].items())
    before = load_file(zeroshot)
    assert (outputs[0]["visual.proj"] - before["visual.proj"]).abs().max() > 1e-3


def test_inputs_that_cannot_be_used_are_named(zeroshot, tmp_path):
    """An output that is the input, a missing folder and several data sets are errors that name them."""
    with pytest.raises(OutputError, match="one of the inputs"):
        finetune(zeroshot, "digits", zeroshot, **QUICK)
    with pytest.raises(SuiteError, match="nowhere"):
        finetune(zeroshot, tmp_path / "nowhere", tmp_path / "ft.safetensors", **QUICK)
    with pytest.raises(SuiteError, match="expected one data set"):
        finetune(zeroshot, "digits-small,digits-faded", tmp_path / "ft.safetensors", **QUICK)


@pytest.mark.parametrize("warmup", [None, 3])
def test_defaults_are_the_papers(warmup):
    """Defaults are the paper's, and a short run warms up for a tenth of its steps."""
    request = FinetuneOptions("zs", "digits", Path("ft"), warmup=warmup)
    long, short = optimization(request, 512, 25_000), optimization(request, 512, 100)
    assert (request.epochs, request.batch_size, request.augmentation) == (10, 512, "crop")
    assert (long.learning_rate, long.weight_decay, long.clip, long.warmup) == (3e-5, 0.1, 1.0, warmup or 500)
    assert short.warmup == (warmup or 10)
    linear = FinetuneOptions("zs", "digits", Path("ft"), linear=True)
    assert (optimization(linear, 512, 1).learning_rate, linear.augmentation) == (1e-3, "none")


CODE = """
import os, sys
from pathlib import Path
from mergekit_wise.api.finetune import finetune

source, sigmoid, captions, folder, *ports = sys.argv[1:]
options = {"epochs": 1, "batch_size": 96, "lr": 1e-3, "workers": 0}
crops = {"augment": "crop", "mixup": 0.2, "micro_batch": 20, "validate": "digits-small"}
both = {"augment": "none", "objective": "contrastive", "micro_batch": 30}
head = {"linear": True, "cache": Path(folder) / "cache"}
stages = head | {"linear": False, "lp_ft": True, "lp_lr": 0.01, "anchor": 50, "shots": 60, "track": "tensorboard"}
runs = {"end-to-end": crops, "contrastive": both, "linear": head, "sigmoid": both, "stages": stages, "captions": both}
for port, (name, own) in zip(ports, runs.items()):
    os.environ["MASTER_PORT"] = port
    start = sigmoid if name == "sigmoid" else source
    train = captions if name == "captions" else "digits"
    finetune(start, train, f"{folder}/{name}.safetensors", **options, **own)
"""


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def start(count, code, *arguments, **options):
    """Start `count` processes that run `code` together, as torchrun does; `options` are those of Popen."""
    env = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(count)
    ]


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(tmp_path):
    """Two processes give the weights of one, up to rounding, for every kind of training."""
    source = save_tiny(tmp_path / "zs.safetensors", text=True)
    sigmoid = sigmoid_checkpoint(tmp_path / "sigmoid.safetensors")
    captions = tmp_path / "pairs.csv"
    images = [tmp_path / f"{index}.png" for index in range(120)]
    for path, pixels in zip(images, train_images().pixels, strict=False):
        Image.fromarray(pixels).save(path)
    rows = [f"{path.name},{text} {path.stem}" for path in images for text in ("image", "picture of")]
    captions.write_text("path,caption\n" + "\n".join(rows) + "\n")
    for size in (1, 2):
        (tmp_path / str(size)).mkdir()
        running = start(size, CODE, source, sigmoid, captions, tmp_path / str(size), *free_ports(6))
        assert [process.wait(300) for process in running] == [0] * size
    for name in ("end-to-end", "contrastive", "linear", "sigmoid", "stages", "stages-probe", "captions"):
        before = load_file(sigmoid if name == "sigmoid" else source)
        one, two = (load_file(tmp_path / size / f"{name}.safetensors") for size in "12")
        assert one.keys() == two.keys()
        changed = ["classification_head.weight"] if name == "stages-probe" else one
        for tensor in changed:
            begin, first, second = (without_key_bias(tensor, each[tensor]) for each in (before, one, two))
            assert (second - first).norm() <= 0.02 * (first - begin).norm(), f"{name}: {tensor}"


def without_key_bias(name, tensor):
    """The loss does not depend on the biases of keys (softmax is the same with a constant added): rounding moves them.

    A tensor of stacked biases [3 W] of query, key and value is returned without those of the keys.
    """
    if not name.endswith("in_proj_bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, value])


UNEVEN = """
import os, sys
from pathlib import Path
import torch
from mergekit_wise.api.finetune import finetune
from mergekit_wise.errors import ModelError
from mergekit_wise.training.objectives import Contrastive

source, folder, *ports = sys.argv[1:]
options = {"epochs": 3, "batch_size": 6, "workers": 0, "augment": "none", "objective": "contrastive", "micro_batch": 2}
for port, name in zip(ports, ("whole", "broken")):
    os.environ["MASTER_PORT"] = port
    finetune(source, f"{folder}/{name}.csv", f"{folder}/{name}.safetensors", max_bad=5, **options)

os.environ["MASTER_PORT"] = ports[2]
if os.environ["RANK"] == "1":
    def fails(*arguments, **how):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    Contrastive._features = fails
try:
    finetune(source, f"{folder}/whole.csv", f"{folder}/memory.safetensors", **options)
except ModelError as error:
    print(error)
except RuntimeError as error:
    print("lost" if "gloo" in str(error) else error)
"""


@pytest.mark.slow
def test_processes_with_different_shares_of_a_batch_wait_for_each_other(tmp_path):
    """With one micro-batch or two, and with no readable image at all; where memory runs out, a sentence says so."""
    source = save_tiny(tmp_path / "zs.safetensors", text=True)
    for name, bad in (("whole", 0), ("broken", 5)):
        (tmp_path / name).mkdir()
        rows = [f"{name}/{index}.png,text {index % 3}" for index in range(6)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,caption", *rows, ""]))
        for index, pixels in enumerate(train_images().pixels[:6]):
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
        for index in range(bad):
            (tmp_path / name / f"{index}.png").write_bytes(b"no image")
    running = start(2, UNEVEN, source, tmp_path, *free_ports(3), stdout=subprocess.PIPE)
    try:
        first, second = (process.communicate(timeout=300)[0] for process in running)
    finally:
        for process in running:
            process.kill()
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"zs", "whole", "broken"}
    assert first == b"lost\n"
    assert second.startswith(b"cpu: not enough memory for a micro-batch of 2. Run the command again with a smaller")
    assert b"`micro_batch`" in second


OTHER_STAGES = """
import os, sys
from mergekit_wise.api.finetune import finetune
from mergekit_wise.errors import UsageError

source, output, port = sys.argv[1:]
os.environ["MASTER_PORT"] = port
try:
    finetune(source, "digits", output, epochs=1, workers=0, lp_ft=os.environ["RANK"] == "0")
except UsageError as error:
    sys.exit(7 if "lp_ft" in str(error) else str(error))
"""


@pytest.mark.slow
def test_processes_of_other_stages_refuse_each_other(zeroshot, tmp_path):
    """One with --lp-ft and one without would wait for each other at different places."""
    running = start(2, OTHER_STAGES, zeroshot, tmp_path / "ft.safetensors", *free_ports(1))
    try:
        assert [process.wait(300) for process in running] == [7, 7]
    finally:
        for process in running:
            process.kill()


TWO_EPOCHS = """
import os, sys
from mergekit_wise.api.finetune import finetune

source, output, port, dies = sys.argv[1:]
os.environ["MASTER_PORT"] = port

def progress(what, done, total, unit):
    if dies == "dies" and what.startswith("fine-tuning") and done > total / 2:
        os._exit(9)

options = {"epochs": 2, "batch_size": 96, "lr": 1e-3, "workers": 0, "augment": "none", "validate": "digits-small"}
finetune(source, "digits", output, progress=progress, log=output + ".jsonl", **options)
"""


@pytest.mark.slow
def test_two_processes_resume_after_a_validated_epoch(tmp_path):
    """Killed after the validation of the first epoch, two processes resume together and validate each epoch once."""
    source, output = save_tiny(tmp_path / "zs.safetensors"), tmp_path / "ft.safetensors"
    first, second = start(2, TWO_EPOCHS, source, output, *free_ports(1), "dies")
    assert first.wait(300) == 9
    second.kill()
    second.wait()
    again = start(2, TWO_EPOCHS, source, output, *free_ports(1), "lives")
    try:
        assert [process.wait(60) for process in again] == [0, 0]
    finally:
        for process in again:
            process.kill()
    entries = [json.loads(line) for line in Path(f"{output}.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries if entry["event"] == "validation"] == [1, 2]


def save_timm(path, name="test_vit", classes=10):
    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=classes).state_dict(), path)
    return path


def printed_command(result):
    """The words of the command that a run of fine-tuning advises."""
    assert result.exit_code == 0, result.output
    program, *words = shlex.split(result.stdout.strip().splitlines()[-1])
    assert program == "wise"
    return words


def test_the_commands_that_are_printed_run_as_printed(tmp_path, wise, monkeypatch):
    """From a timm file of other classes to the alphas of a pair: a new head alone, all weights, then a sweep."""
    monkeypatch.chdir(tmp_path)
    save_timm(tmp_path / "my zs.safetensors", classes=7)
    quick = ("--epochs", 1, "--batch-size", 400, "--workers", 0)
    words = ("finetune", "my zs.safetensors", "--train", "digits", "-o", "lp.safetensors", "--model", "timm:test_vit")
    refused = wise(*words, *quick)
    assert refused.exit_code == 1
    assert "--new-head" in refused.stderr
    assert "wise zeroshot" not in refused.stderr, "there is no text tower"
    words = printed_command(wise(*words, *quick, "--new-head", "--linear", "--cache", "cache"))
    assert words[0] == "finetune"
    words = printed_command(wise(*words, *quick))
    assert words[0] == "sweep"
    assert wise(*words, "--limit", 20, "--alphas", "0,1", "--workers", 0).exit_code == 0


def test_what_a_timm_model_needs_to_be_evaluated_stands_in_the_file(tmp_path):
    """Without --model, logits are timm's own of the written weights; classes and preprocessing are recorded."""
    source, output = save_timm(tmp_path / "zs.safetensors", classes=7), tmp_path / "ft.safetensors"
    options = {"epochs": 1, "batch_size": 400, "lr": 1e-2, "workers": 0, "new_head": True}
    finetune(source, "digits", output, model="timm:test_vit", **options)
    with safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classnames"])[:2] == ["zero", "one"]
    settings = json.loads(metadata["timm_config"])["pretrained_cfg"]
    data = resolve_data_config({}, model=timm.create_model("test_vit"))
    assert {key: settings[key] for key in ("mean", "std", "crop_pct")} == {
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "crop_pct": data["crop_pct"],
    }
    own = timm.create_model("test_vit", num_classes=10).eval()
    own.load_state_dict(load_file(output))
    checkpoint = open_checkpoint(output)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), own(images))


def test_a_new_head_starts_from_zeros_and_learns(zeroshot, tmp_path):
    """The head of a CLIP's image tower is replaced, too; its first loss is that of a uniform guess, ln 10."""
    seven = save_tiny(tmp_path / "seven.safetensors", classes=7)
    report = finetune(
        seven,
        "digits",
        tmp_path / "ft.safetensors",
        linear=True,
        new_head=True,
        epochs=1,
        batch_size=797,
        warmup=0,
        workers=0,
        cache=tmp_path / "cache",
    )
    assert report.epochs[0].loss == pytest.approx(np.log(10), abs=1e-4)
    assert load_file(tmp_path / "ft.safetensors")["classification_head.weight"].shape == (10, 32)


def test_training_may_start_from_the_head_in_a_file(zeroshot, tmp_path):
    """The output is that of a checkpoint that holds this head, under the same names."""
    state = load_file(zeroshot)
    metadata = {"open_clip_config": json.dumps(CONFIG)}
    save_file({n: t for n, t in state.items() if n.startswith("visual.")}, tmp_path / "tower.safetensors", metadata)
    np.savez(
        tmp_path / "probe.npz",
        coef_=state["classification_head.weight"].numpy(),
        intercept_=state["classification_head.bias"].numpy(),
    )
    options = {**QUICK, "epochs": 1, "batch_size": 400}
    finetune(zeroshot, "digits", tmp_path / "one.safetensors", **options)
    notes = []
    finetune(
        tmp_path / "tower.safetensors",
        "digits",
        tmp_path / "two.safetensors",
        **options,
        head=tmp_path / "probe.npz",
        note=notes.append,
    )
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert any("normalised features" in note for note in notes)


def test_the_model_that_was_trained_is_recorded_not_the_one_that_the_metadata_says(tmp_path):
    """What --model says while training is what the file says afterwards."""
    source = save_timm(tmp_path / "zs.safetensors")
    said = {"architecture": "test_vit2", "pretrained_cfg": {"mean": [0.1, 0.1, 0.1]}}
    save_file(load_file(source), source, {"timm_config": json.dumps(said)})
    options = {"epochs": 1, "batch_size": 400, "workers": 0, "linear": True, "cache": tmp_path / "cache"}
    finetune(source, "digits", tmp_path / "ft.safetensors", model="timm:test_vit", **options)
    with safe_open(tmp_path / "ft.safetensors", "pt") as file:
        found = json.loads(file.metadata()["timm_config"])
    assert (found["architecture"], found["pretrained_cfg"]["mean"]) == ("test_vit", [0.5, 0.5, 0.5])


def test_images_of_another_size_are_told_by_the_position_embedding(tmp_path):
    """A checkpoint of images of 32 pixels whose configuration says 16 is trained, recorded and evaluated at 32."""
    cfg = json.loads(json.dumps(CONFIG["model_cfg"]))
    cfg["vision_cfg"]["image_size"] = 32
    torch.manual_seed(0)
    state = {n: t for n, t in CLIP(**cfg).state_dict().items() if n.startswith("visual.")}
    source, output = tmp_path / "zs.safetensors", tmp_path / "ft.safetensors"
    save_file(state, source, {"open_clip_config": json.dumps(CONFIG)})
    finetune(source, "digits", output, **{**QUICK, "epochs": 1, "batch_size": 400}, new_head=True)
    with safe_open(output, "pt") as file:
        assert json.loads(file.metadata()["open_clip_config"])["model_cfg"]["vision_cfg"]["image_size"] == 32
    (record,) = evaluate(output, "digits-small", limit=10, workers=0).records
    assert record.preprocess["size"] == 32
    with pytest.raises(ModelError, match="`image_size` 16: the position embedding .* is for images of 32 pixels"):
        evaluate(output, "digits-small", limit=10, image_size=16)


@pytest.mark.parametrize(
    "kind", ["sweep", "parts", "suite", "contrastive", "probe", "validated", "validated contrastive"]
)
def test_the_next_command_names_the_classes_as_the_run_did(kind, tmp_path, wise):
    """After training with --classnames and --max-bad, the printed command has what it needs, and runs as it is."""
    source = save_tiny(tmp_path / "zs.safetensors", classes=2, text=True)
    for part in ("train", "test"):
        for number, folder in enumerate(("c0", "c1")):
            (tmp_path / part / folder).mkdir(parents=True)
            for name in "ab":
                Image.new("RGB", (20, 20), (99 * number, 50, 50)).save(tmp_path / part / folder / f"{name}.png")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "photos.toml").write_text("train = 'train'\nreference = 'test'\n")
    train = tmp_path / {"parts": ".", "suite": "photos.toml"}.get(kind, "train")
    given = {
        "sweep": [],
        "parts": [],
        "suite": [],
        "contrastive": ["--objective", "contrastive", "--templates", "simple"],
        "probe": ["--new-head", "--linear", "--cache", tmp_path / "cache"],
        "validated": ["--validate", tmp_path / "test"],
        "validated contrastive": ["--objective", "contrastive", "--validate", tmp_path / "test"],
    }[kind]
    words = [source, "--train", train, "-o", tmp_path / "ft.safetensors", "--epochs", 1, "--workers", 0]
    result = wise("finetune", *words, "--classnames", tmp_path / "names.txt", "--max-bad", 1, *given)
    assert result.exit_code == 0, result.stderr
    if "validated" in kind:  # the folders c0 and c1 are the cat and the dog there, too
        (line,) = [line for line in entries(tmp_path / "ft.log.jsonl") if line["event"] == "validation"]
        assert line["fine-tuned"].keys() == {"test"}
        assert "'c0'" not in result.stderr
    command = shlex.split(result.stdout.splitlines()[-1])
    assert command[1] == ("finetune" if kind == "probe" else "sweep")
    assert command[command.index("--classnames") + 1] == str(tmp_path / "names.txt")
    assert command[command.index("--max-bad") + 1] == "1"
    quick = ["--epochs", 1, "--workers", 0] if kind == "probe" else ["--results", tmp_path / "r.jsonl", "--workers", 0]
    done = wise(*command[1:], *quick)
    assert done.exit_code == 0, done.stderr

"""Curves for TensorBoard, read back by its own reader, and for Weights & Biases, with a stand-in for its module."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from tensorboard.summary.writer.event_file_writer import AtomicCounter

from mergekit_wise.api.finetune import Stopped, finetune
from mergekit_wise.errors import UsageError
from mergekit_wise.training.trackers import (
    RUN_ID,
    TensorBoard,
    TrackedRun,
    WeightsAndBiases,
    require_trackers,
    tracking,
)
from tests.training.fakes import save_tiny

QUICK = {"epochs": 2, "batch_size": 200, "lr": 1e-3, "augment": "none", "workers": 0, "validate": "digits-small"}


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: small models gain nothing from several, and parallel test processes would compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def curves(folder):
    """What TensorBoard shows: (step, value) of every point, by curve."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def of_log(path):
    """The same from the log, whose format the documentation describes."""
    found = {}
    for line in map(json.loads, path.read_text().splitlines()):
        named = {
            "step": {
                f"training/{key}": line.get(key) for key in ("loss", "accuracy", "learning_rate", "gradient_norm")
            },
            "epoch": {f"epoch/{key}": line.get(key) for key in ("loss", "accuracy")},
            "validation": {
                f"validation/{alpha}/{title}": value
                for key, alpha in (("fine-tuned", "alpha_1"), ("alpha 0.5", "alpha_0.5"))
                for title, value in line.get(key, {}).items()
            },
        }.get(line["event"], {})
        for name, value in named.items():
            found.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return found


def timeless(found):
    return {name: points for name, points in found.items() if "second" not in name}


def test_tensorboard_shows_the_log(tmp_path):
    """After an interruption and a resume, every point once; of an earlier run of the same name, none."""
    source, log = save_tiny(tmp_path / "zs.safetensors"), tmp_path / "log.jsonl"
    options = {**QUICK, "track": "tensorboard", "log": log}
    notes, interrupted = [], []

    def interrupt(what, now, total, unit):
        if what.startswith("fine-tuning") and now == 997 and not interrupted:
            interrupted.append(now)
            os.kill(os.getpid(), signal.SIGINT)

    finetune(source, "digits", tmp_path / "ft.safetensors", **{**options, "epochs": 1, "lr": 1e-2})
    with pytest.raises(Stopped, match="step 6/8"):
        finetune(source, "digits", tmp_path / "ft.safetensors", **options, progress=interrupt)
    finetune(source, "digits", tmp_path / "ft.safetensors", **options, note=notes.append)
    assert f"curves for TensorBoard in {tmp_path / 'ft.tensorboard'}" in notes
    shown = curves(tmp_path / "ft.tensorboard")
    assert timeless(shown) == of_log(log)
    assert [step for step, _ in shown["training/images_per_second"]] == list(range(1, 9))
    assert [step for step, _ in shown["validation/alpha_0.5/Small"]] == [4, 8]


def test_points_of_steps_that_are_taken_again_are_hidden(tmp_path, monkeypatch):
    """A killed run may have written more than its saved state knows."""
    # TensorBoard reads files in the order of their names: of one second, a tenth would be read before a ninth.
    monkeypatch.setattr(event_file_writer, "_global_uid", AtomicCounter(0))
    run = TrackedRun("ft", tmp_path, tmp_path, {}, 0, str)
    killed = TensorBoard(run)
    for step in range(1, 6):
        killed.add(step, {"training/loss": 10.0 + step})
    killed.flush()
    resumed = TensorBoard(TrackedRun("ft", tmp_path, tmp_path, {}, 3, str))
    for step in (4, 5):
        resumed.add(step, {"training/loss": step})
    resumed.close(complete=True)
    killed.close(complete=False)
    assert curves(tmp_path / "ft.tensorboard") == {"training/loss": [(1, 11), (2, 12), (3, 13), (4, 4), (5, 5)]}


class Module:
    """Stands in for the module wandb, and remembers what it gets."""

    Settings = dict

    def __init__(self, mode="online", logged_in=True, fails_at=None):
        self.mode, self.logged_in, self.fails_at = mode, logged_in, fails_at
        self.begun, self.points, self.ended = [], [], []

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, *, prompt, verify):
        assert not prompt
        return self.logged_in

    def init(self, **options):
        self.begun.append(options)
        return SimpleNamespace(
            url="https://wandb.test/run",
            dir="x/files",
            offline=self.mode == "offline",
            log=self.log,
            finish=lambda exit_code: self.ended.append(exit_code),
        )

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("no route\nto the host")
        self.points.append((step, values))


def test_weights_and_biases_gets_the_settings_and_the_points(tmp_path, monkeypatch):
    """A resumed run has the name of the interrupted one, a new one another; the environment names project and run."""
    monkeypatch.setenv("WANDB_PROJECT", "birds")
    wandb, notes = Module(), []

    def run(taken, raises=False):
        tracked = TrackedRun("ft", tmp_path, tmp_path / "state", {"lr": 0.1}, taken, notes.append)
        with tracking(["wandb"], tracked, {"wandb": lambda run: WeightsAndBiases(run, wandb)}) as trackers:
            facts = dict.fromkeys(("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second"), 0.5)
            trackers.add("step", {"step": taken + 1, **facts})
            trackers.add("run", {"steps": 9})
            if raises:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(0, raises=True)
    run(1)
    run(0)
    first, second, third = wandb.begun
    assert (first["project"], first["name"], first["config"], first["dir"]) == (
        "birds",
        "ft",
        {"lr": 0.1},
        str(tmp_path),
    )
    assert first["id"] == second["id"] != third["id"]
    assert [step for step, _ in wandb.points] == [1, 2, 1]
    assert wandb.points[0][1]["training/loss"] == 0.5
    assert wandb.ended == [1, 0, 0]
    assert not (tmp_path / "state" / RUN_ID).exists()
    assert "curves in Weights & Biases: https://wandb.test/run" in notes
    WeightsAndBiases(TrackedRun("ft", tmp_path, tmp_path / "state", {}, 0, notes.append), Module(mode="offline"))
    assert notes[-1] == "curves in Weights & Biases: offline, in x; 'wandb sync x' uploads it"


@pytest.mark.parametrize("broken", ["while it begins", "while it runs"])
def test_a_tracker_that_fails_is_left_out(broken, tmp_path):
    """A note says so once, the other tracker goes on, and nothing is raised."""
    wandb, notes = Module(fails_at=2), []

    def opened(run):
        if broken == "while it begins":
            raise ConnectionError("no route\nto the host")
        return WeightsAndBiases(run, wandb)

    run = TrackedRun("ft", tmp_path, tmp_path / "state", {}, 0, notes.append)
    with tracking(["wandb", "tensorboard"], run, {"wandb": opened, "tensorboard": TensorBoard}) as trackers:
        for step in (1, 2, 3):
            trackers.add("epoch", {"step": step, "loss": 1.0, "accuracy": 0.5, "seconds": 3.0})
    failed = "--track wandb: stopped working (no route); training continues, and the log has all numbers"
    assert [note for note in notes if "--track" in note] == [failed]
    assert [step for step, _ in wandb.points] == ([1] if broken == "while it runs" else [])
    assert [step for step, _ in curves(tmp_path / "ft.tensorboard")["epoch/loss"]] == [1, 2, 3]


def test_what_is_missing_is_said_before_training(tmp_path):
    """A package that is not installed with the line that installs it; no login with both ways out."""
    for name in ("tensorboard", "wandb"):
        with pytest.raises(UsageError, match=f"--track {name}: .*not installed.*pip install {name}"):
            require_trackers([name], installed=lambda name: None)
    with pytest.raises(UsageError, match=r"not logged in.*wandb login.*WANDB_MODE=offline"):
        require_trackers(["wandb"], installed=bool, wandb=Module(logged_in=False))
    for ready in (Module(), Module(mode="offline", logged_in=False)):
        require_trackers(["wandb"], installed=bool, wandb=ready)
    with pytest.raises(UsageError, match=r"`track` mlflow: expected one of tensorboard, wandb"):
        finetune("zs", "digits", tmp_path / "ft.safetensors", track=["tensorboard", "mlflow"])

"""A recipe runs all steps of WiSE-FT from one file, and later only the steps that changed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mergekit_wise.api.finetune import Stopped
from mergekit_wise.api.recipe import read_recipe, recipe
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.results import read_records
from mergekit_wise.results.step_cache import Step, StepCache
from tests.training.fakes import save_tiny

RECIPE = """
folder = "out"
workers = 0

[zeroshot]
checkpoint = "clip.safetensors"
classes = "classes.txt"

[finetune]
train = "digits"
epochs = 1
batch-size = 100
lr = 3e-3
augment = "none"

[sweep]
suite = "digits-small,digits-faded"
alphas = "0,0.5,1"
limit = 40

[report]
"""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path):
    """A folder with a recipe, a CLIP checkpoint and class names."""
    save_tiny(tmp_path / "clip.safetensors", text=True)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def edit(home, old, new):
    text = (home / "recipe.toml").read_text()
    assert old in text
    (home / "recipe.toml").write_text(text.replace(old, new))


def test_only_steps_whose_inputs_changed_run_again(home, monkeypatch):
    """A second run repeats only steps whose inputs changed, from any working folder and whatever the files' times."""
    monkeypatch.chdir("/")
    first = recipe(home / "recipe.toml")
    out = home / "out"
    assert first.done == ("zeroshot", "finetune", "sweep", "report")
    left = {"zeroshot.safetensors", "finetuned.safetensors", "results.jsonl", "report.html", "recipe.json"}
    left |= {"results.answers"}
    assert {path.name for path in out.iterdir()} == left
    assert [c.alpha for c in first.sweep.candidates] == [0.0, 0.5, 1.0]
    assert len(read_records(out / "results.jsonl")) == 6

    # What a cache saves changes no number.
    edit(home, "limit = 40", "limit = 40\ncache = false")
    edit(home, "[zeroshot]", "[zeroshot]\ncache = false")
    again = recipe(home / "recipe.toml")
    assert again.done == ()
    assert again.sweep.candidates == first.sweep.candidates
    assert again.sweep.recommendation == first.sweep.recommendation

    os.utime(home / "clip.safetensors")
    edit(home, 'alphas = "0,0.5,1"', "alphas = [0, 0.25, 0.5, 1]")
    wider = recipe(home / "recipe.toml")
    assert wider.done == ("sweep", "report")
    assert [c.alpha for c in wider.sweep.candidates] == [0.0, 0.25, 0.5, 1.0]
    assert len(read_records(out / "results.jsonl")) == 8  # six were there

    edit(home, "lr = 3e-3", "lr = 1e-3")
    assert recipe(home / "recipe.toml").done == ("finetune", "sweep", "report")
    assert len(read_records(out / "results.jsonl")) == 8  # none of the old weights

    (out / "report.html").unlink()
    assert recipe(home / "recipe.toml").done == ("report",)

    (home / "classes.txt").write_text("\n".join((*NAMES[:-1], "Nine")))
    # Tokens are lower case: nothing new is measured but seconds, and if these are the same, the report is up to date.
    assert recipe(home / "recipe.toml").done[:3] == ("zeroshot", "finetune", "sweep")


TOGETHER = """
import json, sys
from mergekit_wise.api.recipe import recipe
from mergekit_wise.evaluation import joined

notes = []
with joined("cpu") as (ranks, _):
    first = recipe(sys.argv[1], note=notes.append)
    again = recipe(sys.argv[1])
best = [repr(each) for each in first.sweep.candidates]
print(json.dumps([first.done, again.done, best, len(notes)]))
"""


@pytest.mark.slow
def test_two_processes_run_a_recipe_together(home):
    """Both fine-tune and sweep, the first writes what a single process writes, and a second run has nothing to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(home / "recipe.toml")],
            cwd=Path(__file__).parents[2],
            env={**env, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    found = [json.loads(process.communicate(timeout=300)[0]) for process in running]
    for done, again, best, _ in found:
        assert (done, again) == (["zeroshot", "finetune", "sweep", "report"], [])
        assert best == found[0][2]
    assert found[0][3] > 4 > found[1][3] == 0
    left = {"zeroshot.safetensors", "finetuned.safetensors", "results.jsonl", "results.answers", "report.html"}
    assert {path.name for path in (home / "out").iterdir()} == left | {"recipe.json"}
    assert len(read_records(home / "out" / "results.jsonl")) == 6


def test_results_of_other_options_in_the_same_file_are_not_taken_for_those_of_the_recipe(home):
    """After the limit was changed, the results file holds both measurements, and only the new one is recommended on."""
    recipe(home / "recipe.toml")
    edit(home, "limit = 40", "limit = 60")
    changed = recipe(home / "recipe.toml")
    again = recipe(home / "recipe.toml")
    assert (changed.done, again.done) == (("sweep", "report"), ())
    assert len(read_records(home / "out" / "results.jsonl")) == 12
    for report in (changed, again):
        assert {record.total for record in report.sweep.records} == {60}
        assert [len(candidate.shifts) for candidate in report.sweep.candidates] == [2, 2, 2]
    assert again.sweep.candidates == changed.sweep.candidates


def test_outputs_are_checked_before_the_first_step(home):
    """A folder in place of the page is an error before anything is trained."""
    (home / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"report\.html: is a folder"):
        recipe(home / "recipe.toml")
    assert [path.name for path in (home / "out").iterdir()] == ["report.html"]


def test_an_interrupted_recipe_resumes(home):
    """A recipe that was interrupted while fine-tuning resumes, and ends with the bytes of an uninterrupted run."""
    whole = recipe(home / "recipe.toml").finetuned.read_bytes()
    shutil.rmtree(home / "out")
    (home / "out").mkdir()

    def interrupt(what, done, total, unit):
        if what.startswith("fine-tuning") and done == 300:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        recipe(home / "recipe.toml", progress=interrupt)
    notes = []
    report = recipe(home / "recipe.toml", note=notes.append)
    assert report.done == ("finetune", "sweep", "report")
    assert any("resuming at step" in text for text in notes)
    assert report.finetuned.read_bytes() == whole


def test_a_checkpoint_with_a_head_needs_no_first_step(home):
    """With a checkpoint that has a head, the recipe needs no zero-shot step."""
    start = RECIPE.index("[zeroshot]"), RECIPE.index("[finetune]")
    text = RECIPE[: start[0]] + RECIPE[start[1] :].replace("[finetune]", '[finetune]\ncheckpoint = "clip.safetensors"')
    (home / "recipe.toml").write_text(text)
    assert recipe(home / "recipe.toml").done == ("finetune", "sweep", "report")


def test_wise_toml_is_a_recipe(home, wise, monkeypatch):
    """`wise recipe` runs wise.toml by default, prints a table, and ignores other commands' keys."""
    (home / "wise.toml").write_text(
        RECIPE.replace('folder = "out"', "") + '\n[recipe]\nfolder = "out"\n[diff]\njson = true\n'
    )
    monkeypatch.chdir(home)
    result = wise("--no-config", "recipe")
    assert result.exit_code == 0, result.stderr
    assert "Recommended alpha" in result.stdout
    assert "report.html" in result.stdout
    assert "sweep: up to date" in wise("--no-config", "recipe").stderr


def test_names_of_files_beside_the_recipe_are_paths(home):
    """Names of files beside the recipe are paths to them, and all other values are passed on unchanged."""
    edit(home, 'train = "digits"', 'train = "train"\nfreeze = "*.bias"\nlog = "ft.jsonl"')
    (home / "train").mkdir()
    edit(home, 'suite = "digits-small,digits-faded"', 'suite = "digits-small, train"')
    folder, steps = read_recipe(home / "recipe.toml")
    assert folder == home / "out"
    assert steps["finetune"]["train"] == str(home / "train")
    assert steps["finetune"]["log"] == home / "out" / "ft.jsonl"
    assert steps["finetune"]["workers"] == steps["sweep"]["workers"] == 0
    assert steps["sweep"]["suite"][1] == str(home / "train")
    assert "workers" not in steps["zeroshot"]


def test_a_recipe_is_checked_as_the_command_line_is(home):
    """Numbers may be texts, underscores may replace hyphens, and a flag that is neither true nor false is refused."""
    edit(home, "epochs = 1\nbatch-size = 100", 'epochs = "1"\nbatch_size = 100')
    assert recipe(home / "recipe.toml").done[1] == "finetune"
    edit(home, 'augment = "none"', 'augment = "none"\nlinear = "no"')
    with pytest.raises(UsageError, match="linear = no: expected true or false"):
        recipe(home / "recipe.toml")


def test_former_keys_are_still_understood(home):
    """`file` and `data` of a recipe for an earlier version are the checkpoint and the training data."""
    text = (home / "recipe.toml").read_text()
    (home / "recipe.toml").write_text(text.replace("checkpoint =", "file =").replace("train =", "data ="))
    _, steps = read_recipe(home / "recipe.toml")
    assert steps["zeroshot"]["checkpoint"] == str(home / "clip.safetensors")
    assert steps["finetune"]["train"] == "digits"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs = 1", "epoch = 1", r"\[finetune\] has no option 'epoch'\. Did you mean 'epochs'"),
        ("[sweep]", "[swep]", r"\[swep\] is no command\. Did you mean '\[sweep\]'"),
        ('train = "digits"', "", r"\[finetune\] with train"),
        ('suite = "digits-small,digits-faded"', "", r"\[sweep\] with suite"),
        ('checkpoint = "clip.safetensors"', "", "names no checkpoint"),
        ("workers = 0", "workers == 0", "is not TOML"),
        ("workers = 0", "workerz = 0", "no command has an option 'workerz'"),
        ("epochs = 1", "epochs = 0", "epochs = 0: expected at least 1"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(old, new, says, home):
    """A recipe with a mistake is an error that names the key or table, before any step runs."""
    edit(home, old, new)
    with pytest.raises(UsageError, match=says):
        recipe(home / "recipe.toml")
    assert not (home / "out" / "finetuned.safetensors").exists()


def test_an_unfinished_step_runs_again(tmp_path):
    """An unfinished step runs again and may resume if its inputs are the same; a damaged ledger restarts all."""
    ledger, calls = StepCache(tmp_path / "state.json"), []
    output = tmp_path / "out"

    def step(inputs, fail=False):
        def run(again):
            calls.append(again)
            if fail:
                raise KeyboardInterrupt
            output.write_text(str(inputs))

        return Step("s", inputs, (output,), run, basis=("a",))

    with pytest.raises(KeyboardInterrupt):
        ledger.perform(step({"a": 1, "b": 1}, fail=True))
    done = [ledger.perform(step({"a": 1, "b": 1})), ledger.perform(step({"a": 1, "b": 1}))]
    done += [ledger.perform(step({"a": 1, "b": 2})), ledger.perform(step({"a": 2, "b": 2}))]
    output.write_text("changed by someone")
    done.append(ledger.perform(step({"a": 2, "b": 2})))
    (tmp_path / "state.json").write_text('{"s": 3')
    done.append(ledger.perform(step({"a": 2, "b": 2})))
    assert done == [True, False, True, True, True, True]
    assert calls == [False, True, True, False, True, False]
    assert json.loads((tmp_path / "state.json").read_text())["s"].keys() == {"inputs", "basis", "outputs"}

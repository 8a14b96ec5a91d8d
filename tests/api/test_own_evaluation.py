"""Sweeps and evaluations by an evaluator of one's own: a command, a function, a package's."""

import functools
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mergekit_wise import evaluate, merge, sweep
from mergekit_wise.analysis import Point
from mergekit_wise.errors import OutputError, SuiteError, Unsaved, UsageError
from mergekit_wise.evaluation.own_evaluator import ModelTask, TaskResult
from mergekit_wise.report.comparison import BOTH, SHIFTS, compare
from mergekit_wise.results import read_choices, read_records
from mergekit_wise.results.reader import read_results

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from safetensors import safe_open

file = Path(sys.argv[-1])
with open("log", "a") as log:
    log.write(f"{file}\\t{hashlib.sha256(file.read_bytes()).hexdigest()}\\n")
with safe_open(file, "np") as stored:
    weight = stored.get_tensor("layer.0.weight")
def items(seed):
    x = np.random.default_rng(seed).normal(size=(60, 33))
    return np.exp(-np.abs(x @ weight.T).mean(axis=1) / 10)
print("not the result: {}")
print(json.dumps({
    "val": {"items": items(0).tolist(), "metric": "closeness", "values": {"lowest": float(items(0).min())}},
    "night": {"items": items(1).tolist(), "metric": "closeness"},
    "hits": {"items": (items(2) > 0.56).tolist(), "metric": "hit rate", "title": "Hits"},
}))
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The line of a command that scores the items of three data sets by the weights, in a folder with a space."""
    monkeypatch.chdir(tmp_path)
    Path("my eval.py").write_text(SCRIPT)
    return f"{sys.executable} 'my eval.py' {{file}}"


def stored(file, name="layer.0.weight"):
    """One tensor of a file, which also holds bfloat16, as NumPy has none."""
    with safe_open(file, "np") as opened:
        return opened.get_tensor(name)


def log():
    return [line.split("\t") for line in Path("log").read_text().splitlines()]


def items(weight, seed):
    """What the script scores, in NumPy."""
    x = np.random.default_rng(seed).normal(size=(60, 33))
    return np.exp(-np.abs(x @ np.asarray(weight).T).mean(axis=1) / 10)


def score_of(state):
    """A function with what the script reports."""
    weight = state["layer.0.weight"]
    return {
        "val": {"items": items(weight, 0), "metric": "closeness"},
        "night": {"items": items(weight, 1), "metric": "closeness"},
        "hits": {"items": items(weight, 2) > 0.56, "metric": "hit rate", "title": "Hits"},
    }


def test_a_command_sees_the_bytes_that_merge_writes_and_nothing_is_left(pair, script, tmp_path):
    """For checkpoints that no model of open_clip's or timm's can load; a path with spaces is one argument."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    sweep(*pair, command=script, alphas=ALPHAS, dtype="fp16", keep="zs:layer.1.*", results=folder / "r.jsonl")
    for (file, digest), alpha in zip(log(), ALPHAS, strict=True):
        merged = merge(*pair, "merged.safetensors", alpha=alpha, dtype="fp16", keep="zs:layer.1.*").output
        assert digest == hashlib.sha256(merged.read_bytes()).hexdigest()
        assert not Path(file).parent.exists()
        assert Path(file).parent.parent == folder
    assert {path.name for path in folder.iterdir()} == {"r.jsonl", "r.answers"}


def test_records_hold_what_the_evaluator_reports(pair, script):
    """The number of each data set is the mean of its items; the reference is the one that is named."""
    report = sweep(*pair, command=script, reference="val", alphas=ALPHAS, results="r.jsonl")
    records = read_records(Path("r.jsonl"))
    assert len(records) == report.added == 15
    for record in records:
        weight = stored(merge(*pair, "m.safetensors", alpha=record.alpha).output)
        scores = items(weight, ["val", "night", "hits"].index(record.dataset))
        if record.dataset == "hits":
            assert (record.correct, record.total, record.metric) == ((scores > 0.56).sum(), 60, "hit rate")
            assert (record.title, record.role, record.value) == ("Hits", "shift", (scores > 0.56).mean())
        else:
            assert (record.correct, record.total, record.metric) == (None, 60, "closeness")
            assert record.value == pytest.approx(scores.mean(), abs=1e-12)
            assert record.role == ("reference" if record.dataset == "val" else "shift")
            # A normal interval is near that of the bootstrap for sixty items.
            error = scores.std() / np.sqrt(59)
            assert record.interval == pytest.approx(
                (scores.mean() - 1.96 * error, scores.mean() + 1.96 * error), abs=error / 4
            )
        assert record.values == ({"lowest": scores.min()} if record.dataset == "val" else {})
        assert record.evaluator == script


def test_mixtures_are_compared_item_by_item(pair, script):
    """The difference of two mixtures has the interval of the paired bootstrap over items, computed here in NumPy."""
    report = sweep(*pair, command=script, reference="val", alphas=ALPHAS)
    assert report.choice.paired
    for difference in report.choice.differences:
        if difference.column != "night":
            continue
        first, second = (
            items(stored(merge(*pair, "m.safetensors", alpha=alpha).output), 1)
            for alpha in (difference.point.alpha, 0.5)
        )
        gaps = first - second
        rng = np.random.default_rng(5)
        error = gaps[rng.integers(0, 60, (4000, 60))].mean(axis=1).std() * np.sqrt(60 / 59)
        found = difference.difference
        assert found.value == pytest.approx(gaps.mean(), abs=1e-6)
        assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    best = max(ALPHAS, key=lambda alpha: next(c.average for c in report.candidates if c.alpha == alpha))
    assert report.recommendation.point in (Point.of_alpha(best), Point.of_alpha(0.5))


def test_a_function_gets_state_dicts_and_measures_the_same(pair, states, script):
    """From files and from state dicts in memory, with the numbers that the command gets from files."""
    by_command = sweep(*pair, command=script, reference="val", alphas=ALPHAS)
    for sources in (pair, states):
        seen: list[dict[str, torch.Tensor]] = []

        def scored(state, seen=seen):
            seen.append(state)
            return score_of(state)

        found = sweep(*sources, evaluator=scored, reference="val", alphas=ALPHAS)
        assert [each.value for each in found.records] == pytest.approx([each.value for each in by_command.records])
        assert found.recommendation.point == by_command.recommendation.point
        for state, alpha in zip(seen, ALPHAS, strict=True):
            expected = merge(*sources, alpha=alpha)
            assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_function_gets_a_copy_of_a_module_with_the_weights_set_in_place():
    """Whatever the function did to the last one; the original keeps its weights."""
    zeroshot, finetuned = torch.nn.Linear(3, 2).eval(), torch.nn.Linear(3, 2)
    zeroshot.register_buffer("seen", torch.zeros(1), persistent=False)
    before = {name: tensor.clone() for name, tensor in zeroshot.state_dict().items()}
    seen = []

    def scored(module):
        assert (module.training, module.seen.item(), module.weight.requires_grad) == (False, 0, True)
        module.train().requires_grad_(False)
        module.seen += 1
        seen.append((module, module.weight.detach().clone()))
        return {"score": float(module.weight.detach().sigmoid().mean())}

    sweep(zeroshot, finetuned, evaluator=scored, alphas=(0.0, 0.3, 1.0))
    assert not zeroshot.training
    assert all(module is not zeroshot for module, _ in seen)
    for alpha, (_, weight) in zip((0.0, 0.3, 1.0), seen, strict=True):
        wanted = (1 - alpha) * zeroshot.weight.double() + alpha * finetuned.weight.double()
        assert torch.allclose(weight.double(), wanted, atol=1e-7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in zeroshot.state_dict().items())


def test_what_is_known_is_not_evaluated_again(pair, script):
    """Also for other roles, after more alphas, and for the merged file of a mixture; with another choice, too."""
    sweep(*pair, command=script, reference="val", alphas=(0, 0.5, 1), results="r.jsonl")
    assert len(log()) == 3
    again = sweep(*pair, command=script, reference="night", alphas=(0, 0.5, 1), results="r.jsonl", prefer="no-regret")
    assert (len(log()), again.added, again.choice.paired) == (3, 0, True)
    assert {record.role for record in again.records if record.dataset == "night"} == {"reference"}
    more = sweep(*pair, command=script, reference="night", alphas=(0, 0.5, 0.75, 1), results="r.jsonl")
    assert (len(log()), more.added) == (4, 3)
    merged = merge(*pair, "m.safetensors", alpha=0.75).output
    alone = evaluate(merged, command=script, reference="night", results="r.jsonl")
    assert (len(log()), alone.added) == (4, 0)
    assert [r.value for r in alone.records] == [r.value for r in more.records if r.alpha == 0.75]
    assert evaluate(merged, command=script, redo=True, results="r.jsonl").added == 3


def test_a_report_has_the_roles_of_the_latest_run(pair, script):
    """Without a reference there is no average of both; with another one, or the first again, it is that run's."""
    for reference in ("val", None, "night", "val"):
        found = sweep(*pair, command=script, reference=reference, alphas=(0, 1), results="r.jsonl", prefer="average")
        (comparison,) = compare(read_results([Path("r.jsonl")]))
        assert [c.name for c in comparison.columns if c.role == "reference"] == ([reference] if reference else [])
        (curve,) = comparison.curves
        means = {c.name: curve.result(0.0, c).value for c in comparison.columns if c.role == "average"}
        (first, _) = found.candidates
        expected = {SHIFTS: first.shift_accuracy} | ({BOTH: first.average} if reference else {})
        assert means == pytest.approx(expected)
    assert len(log()) == 2


@pytest.mark.parametrize("changed", ["command", "script", "version"])
def test_a_changed_evaluator_is_run_again(pair, script, changed):
    """The line, the contents of a file that it names, and the version that is given are what numbers depend on."""
    sweep(*pair, command=script, alphas=(0, 1), results="r.jsonl")
    options = {"command": script}
    if changed == "command":
        options["command"] = script.replace("{file}", "--fast {file}")
    elif changed == "script":
        Path("my eval.py").write_text(f"{SCRIPT}# changed")
    else:
        options["evaluator_version"] = "2"
    again = sweep(*pair, **options, alphas=(0, 1), results="r.jsonl")
    assert (again.added, len(log())) == (6, 4)
    assert any("changed" in note for note in again.notes) == (changed != "command")


@pytest.mark.parametrize("how", ["closure", "array", "tensor", "default", "partial", "object", "method"])
def test_one_function_with_other_values_is_another_evaluator(pair, tmp_path, monkeypatch, how):
    """A lambda in a loop measures every task; the same values again are known."""
    monkeypatch.chdir(tmp_path)

    class Scorer:
        def __init__(self, score):
            self.score = score

        def __call__(self, state):
            return float(self.score)

        def method(self, state):
            return float(self.score)

    def of(score):
        def default(state, score=score):
            return score

        if how in ("array", "tensor"):
            score = np.array(score) if how == "array" else torch.tensor(score, dtype=torch.bfloat16)
        return {
            "default": default,
            "partial": functools.partial(lambda score, state: score, score),
            "object": Scorer(score),
            "method": Scorer(score).method,
        }.get(how, lambda state: float(score))

    for score, added in ((0.25, 1), (0.5, 1), (0.5, 0), (0.25, 0)):
        found = evaluate(pair[0], evaluator=of(score), results="r.jsonl")
        assert (found.added, found.records[0].value) == (added, score)


def test_changed_weights_are_evaluated_again(pair, states, script):
    """The same names with other weights are another model; alpha 1 is the same one."""
    sweep(*pair, command=script, alphas=(0, 1), results="r.jsonl")
    torch.save({**states[0], "scale": torch.tensor(7.0)}, pair[0])
    again = sweep(*pair, command=script, alphas=(0, 1), results="r.jsonl")
    assert again.added == 3
    assert "Measured again: the weights changed." in again.notes


def test_a_failing_command_shows_its_own_output_and_keeps_what_was_measured(pair, script, wise):
    """The same command goes on where the failure was, and measures nothing twice."""
    Path("my eval.py").write_text(
        f"{SCRIPT}\nif Path('fail').exists() and len(open('log').readlines()) > 2: sys.exit('no GPU left')"
    )
    Path("fail").touch()
    words = ("sweep", *pair, "--command", script, "--alphas", "0:1:0.25")
    result = wise(*words)
    assert result.exit_code == 1
    assert "exit code 1" in result.stderr
    assert "no GPU left" in result.stderr
    assert "6 results saved in results.jsonl; run the same command to continue" in result.stderr
    assert "Measured on my eval before the error" in result.stdout
    assert len(read_records(Path("results.jsonl"))) == 6
    Path("fail").unlink()
    again = wise(*words)
    assert again.exit_code == 0, again.stderr
    assert len(log()) == 3 + 3
    assert "6 results reused from results.jsonl" in again.stderr
    assert not list(Path.cwd().glob(".wise*"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('hello')", ["printed no JSON object", "hello"]),
        ("pass", ["printed no JSON object", "It printed nothing"]),
        ("print('{\"score\": NaN}')", ["NaN"]),
        ("print('{\"loss\": 2.3}')", ["'loss' is no part of a result"]),
        ("print('{\"score\": 71.2}')", ["divide a percentage by 100"]),
        ("print('x' * 10_000_000); print(chr(27) + '[2J')", ["printed no JSON object", "\\x1b[2J"]),
        ("import os; os.kill(os.getpid(), 9)", ["was ended by signal 9"]),
    ],
)
def test_what_a_command_does_wrong_is_said(pair, tmp_path, monkeypatch, wise, code, words):
    """The sentence has the command's own last lines, without control characters, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    result = wise("sweep", *pair, "--command", f"{sys.executable} -c {json.dumps(code)} {{file}}")
    assert result.exit_code == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert len(result.stderr) < 8000
    assert not Path("results.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": "python eval.py"}, "{file}"),
        ({"command": "python 'eval.py {file}"}, "quotation"),
        ({"command": "no-such-program {file}"}, "cannot be run"),
        ({"command": "true {file}", "evaluator": score_of}, "both evaluate"),
        ({"evaluator": "no-such"}, "no evaluator has this name"),
        ({"evaluator": score_of, "suite": "digits"}, "`suite`"),
        ({"evaluator": score_of, "analyze": True}, "`analyze`"),
        ({"evaluator": score_of, "dynamic": True}, "`dynamic`"),
        ({"evaluator": score_of, "unlabelled": "x"}, "`unlabelled`"),
        ({"evaluator": score_of, "calibrate": "digits", "output": "o.safetensors"}, "`calibrate`"),
        ({"evaluator": score_of, "per_class": "x.csv"}, "`per_class`"),
        ({"evaluator": score_of, "limit": 3}, "`limit`"),
        ({"evaluator": score_of, "transform": np.asarray}, "`transform`"),
        ({"evaluator": score_of, "prefer": "nll"}, "`prefer` nll"),
        ({"evaluator": score_of, "reference": "dawn"}, "reports no data set of this name, but val, night, hits"),
        ({"evaluator": score_of, "select_on": "dawn"}, "reports no data set of this name"),
        ({"evaluator": score_of, "plot": "x.png"}, "name one with `reference`"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_name(pair, tmp_path, monkeypatch, options, words):
    """What an evaluator of one's own cannot do, or does not report."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, OutputError, SuiteError)) as caught:
        sweep(*pair, alphas=(0, 1), **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("option", [{"model": "ViT-B-32"}, {"device": "cpu:0"}, {"data": "."}], ids="".join)
@pytest.mark.parametrize("way", ["command", "function"])
def test_an_evaluation_refuses_options_that_it_would_ignore(pair, script, way, option):
    """The checkpoint is given as it is, and images are looked for nowhere."""
    given = {"command": script} if way == "command" else {"evaluator": score_of}
    (name,) = option
    with pytest.raises(UsageError, match=f"`{name}`"):
        evaluate(pair[0], **given, **option)
    assert not Path("results.jsonl").exists()


def test_a_data_root_of_the_environment_is_no_mistake(pair, script, wise, monkeypatch):
    """WISE_DATA is set for all commands, whatever they evaluate."""
    monkeypatch.setenv("WISE_DATA", "data")
    result = wise("eval", pair[1], "--command", script)
    assert result.exit_code == 0, result.output


def test_merged_files_of_killed_runs_are_removed_by_the_next(pair, script):
    """A sweep looks beside its results for folders that no process has locked."""
    abandoned = Path(".wise-mixture-1-0123abcd")
    abandoned.mkdir()
    (abandoned / "mixture.safetensors").write_bytes(b"half")
    assert sweep(*pair, command=script, alphas=(0.5,), results="r.jsonl").added == 3
    assert not list(Path().glob(".wise-mixture-*"))


def test_torchrun_is_refused(pair, monkeypatch, tmp_path):
    """Every process would evaluate every mixture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun started 2"):
        evaluate(pair[0], evaluator=score_of)


def test_scores_without_items_are_compared_by_intervals_and_a_note_says_so(pair, tmp_path, monkeypatch, wise):
    """Counts have exact intervals; a score alone has none, and nothing is significant."""
    monkeypatch.chdir(tmp_path)

    def scored(state):
        share = float(torch.sigmoid(state["layer.0.weight"]).mean())
        return {"counted": {"correct": round(1000 * share), "total": 1000}, "alone": {"score": share, "metric": "mIoU"}}

    report = sweep(*pair, evaluator=scored, reference="counted", alphas=ALPHAS, results="results.jsonl")
    assert not report.choice.paired
    assert any('"items"' in note for note in report.notes)
    assert not any(loss.significant for loss in report.losses)
    records = read_records(Path("results.jsonl"))
    alone = next(record for record in records if record.dataset == "alone")
    assert (alone.correct, alone.total) == (None, 1)
    assert np.isnan(alone.interval).all()
    assert wise("report", "results.jsonl", "--csv", "r.csv").exit_code == 0
    assert "mIoU" in Path("r.csv").read_text()
    assert "mIoU" in Path("report.html").read_text()


def test_one_model_may_have_scores_of_zero_and_one_alone(states):
    """Its items are right and wrong by themselves, and scores beside those of the others."""
    zeroshot, finetuned = states
    scores = {0.0: [0.0, 1.0, 1.0, 0.0], 0.5: [0.5, 1.0, 1.0, 0.0], 1.0: [0.5, 0.5, 1.0, 0.5]}
    at = iter(scores.values())
    report = sweep(zeroshot, finetuned, evaluator=lambda state: {"items": next(at)}, alphas=tuple(scores))
    assert report.choice.paired
    assert [answers.numbers[:, 0].tolist() for answers in report.answers] == [list(scores.values())]


def test_one_module_and_one_state_dict_are_evaluated_as_they_are(states):
    """No copy is made of a module, and a state dict is the tensors of the checkpoint."""
    module = torch.nn.Linear(2, 2)
    seen = []
    evaluate(module, evaluator=lambda given: seen.append(given) or {"score": 1})
    assert seen == [module]
    found = evaluate(
        states[0], evaluator=lambda state: {"score": float(torch.equal(state["frozen"], states[0]["frozen"]))}
    )
    assert found.records[0].value == 1


def test_a_command_gets_the_file_that_is_evaluated_itself(pair, tmp_path, monkeypatch):
    """Nothing is copied where there is a file; a model in memory is written and removed."""
    monkeypatch.chdir(tmp_path)
    Path("path.py").write_text(
        "import json, sys\nopen('seen', 'a').write(sys.argv[1] + '\\n')\nprint(json.dumps({'score': 1}))"
    )
    line = f"{sys.executable} path.py {{file}}"
    evaluate(pair[1], command=line)
    evaluate({"w": torch.ones(3)}, command=line)
    first, second = Path("seen").read_text().splitlines()
    assert first == str(pair[1])
    assert second.endswith("mixture.safetensors")
    assert not Path(second).exists()


def test_a_task_evaluator_gets_mixtures(pair):
    """An object with an identity, a name, a reference and a title decides what it takes of a mixture."""

    class Evaluator:
        identity, name, reference, title = "v1", "my task", "val", "the evaluator"

        def __call__(self, mixture):
            _, storage = mixture.variant.read("scale")
            number = stored(mixture.file, "scale")
            assert number == storage == mixture.state_dict["scale"]
            assert set(mixture.template.tensors) == set(mixture.state_dict)
            score = float(1 / (1 + np.exp(-number)))
            return [
                TaskResult("val", "closeness", score=score),
                TaskResult("night", "closeness", items=np.array([score, 0])),
            ]

    report = sweep(*pair, evaluator=Evaluator(), alphas=(0, 1))
    assert {(record.dataset, record.role) for record in report.records} == {("val", "reference"), ("night", "shift")}
    assert {record.suite for record in report.records} == {"my task"}


def test_a_task_evaluator_that_builds_a_model_is_opened_before_it_is_used(pair):
    """What it depends on is asked for once it knows the model; it may give results one by one."""

    class Task(ModelTask):
        name, reference, title, identity = "built", "", "the task", ""

        def open(self, template, note):
            note("opened")
            self.identity = f"{len(template.tensors)} tensors"

        def __call__(self, mixture):
            assert self.identity
            yield TaskResult("val", "m", score=0.5)

    found = evaluate(pair[0], evaluator=Task())
    assert found.records[0].value == 0.5
    assert "opened" in found.notes


def test_packages_provide_evaluators_by_entry_points(pair, tmp_path, monkeypatch, wise):
    """By name, with the text after the colon as the argument; an unknown name is answered with those that exist."""
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    info = site / "their_tasks-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[mergekit_wise.evaluators]\ntheirs = their_tasks:make\nbroken = their_tasks:missing\nnone = their_tasks:none\n"
        "ends = their_ends:make\nfails = their_tasks:fails\nunmade = their_tasks:unmade\ntalks = their_tasks:talks\n"
    )
    (site / "their_ends.py").write_text("raise SystemExit(0)")
    (site / "their_tasks.py").write_text(
        "def make(argument):\n"
        "    def score(state):\n"
        "        return {argument: {'score': float(state['scale'].sigmoid())}}\n"
        "    return score\n"
        "def none(argument):\n"
        "    return None\n"
        "def fails(argument):\n"
        "    return lambda state: {'score': 1 / 0}\n"
        "def unmade(argument):\n"
        "    raise KeyError(argument)\n"
        "def talks(argument):\n"
        "    print('made')\n"
        "    return lambda state: print('called') or {'score': 1}\n"
    )
    monkeypatch.syspath_prepend(str(site))
    result = wise("sweep", *pair, "--evaluator", "theirs:their set", "--alphas", "0,1")
    assert result.exit_code == 0, result.stderr
    (first, _) = read_records(Path("results.jsonl"))
    assert (first.dataset, first.value) == ("their set", pytest.approx(1 / (1 + np.exp(-2.5))))
    for name, words in (("their", "theirs"), ("broken", "cannot be loaded"), ("none", "returned NoneType")):
        result = wise("eval", pair[0], "--evaluator", name)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    for name, words in (("ends", "SystemExit"), ("fails", "ZeroDivisionError"), ("unmade", "KeyError")):
        result = wise("eval", pair[0], "--evaluator", name)
        assert result.exit_code in (1, 2), result.stderr
        assert words in result.stderr
        assert "(their-tasks 1.2)" in result.stderr
    assert json.loads(wise("eval", pair[0], "--evaluator", "talks", "--json").stdout)[0]["value"] == 1


def test_the_choice_the_report_and_comparisons_work_as_for_images(pair, script, wise):
    """No-regret, a held-out data set, refinement, the page, compare, LaTeX and the written mixture."""
    words = ("sweep", *pair, "--command", script, "--reference", "val", "--prefer", "no-regret", "--refine")
    result = wise(*words, "--alphas", "0,0.5,1", "-o", "best.safetensors", "--plot", "p.png", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert all("accuracy" not in record for record in found["records"])
    assert Path("best.safetensors").exists()
    assert len(read_choices(Path("results.jsonl"))) == 1
    assert wise("sweep", *pair, "--command", script, "--select-on", "night", "--alphas", "0,0.5,1").exit_code == 0
    compared = wise("compare", "results.jsonl", "--against", "0", "--alphas", "1")
    assert compared.exit_code == 0, compared.stderr
    assert "Hits" in compared.stdout
    report = wise("report", "results.jsonl", "--latex", "t.tex", "--markdown", "t.md")
    assert report.exit_code == 0, report.stderr
    page = Path("report.html").read_text()
    assert "closeness" in page
    assert "Score vs. alpha" in page
    assert "closeness" in Path("t.md").read_text()


def test_an_interruption_ends_the_command_and_removes_its_file(pair, tmp_path):
    """SIGTERM to wise ends what the command started, too; results of earlier mixtures stay."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import json, os, subprocess, sys, time\n"
        "if os.path.exists('begun'):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "    os.rename('pids', 'running')\n"
        "    time.sleep(60)\n"
        "open('begun', 'w')\n"
        "print(json.dumps({'score': 0.5}))\n"
    )
    words = ["sweep", *map(str, pair), "--command", f"{sys.executable} slow.py {{file}}", "--alphas", "0,1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mergekit_wise", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    running = tmp_path / "running"
    until = time.monotonic() + 60
    while not running.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "1 result saved in results.jsonl; run the same command to continue" in err
    assert not list(tmp_path.glob(".wise*"))
    for pid in map(int, running.read_text().split()):
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(pid, 0)
                time.sleep(0.05)


def test_a_full_disk_is_reported_before_anything_is_evaluated(pair, script, monkeypatch):
    """The sentence names the option that chooses where merged files lie."""
    monkeypatch.setattr("mergekit_wise.checkpoint.writing.free_bytes", lambda folder: 10)
    with pytest.raises(OutputError, match="`results`"):
        sweep(*pair, command=script, results="r.jsonl")
    assert not Path("log").exists()


def test_a_function_that_reports_too_few_items_keeps_what_was_measured(pair):
    """The error carries the measurements of the models before."""
    counts = iter((3, 3, 2))
    with pytest.raises(Unsaved, match="2 items for one mixture and 3 for another") as caught:
        sweep(*pair, evaluator=lambda state: {"items": [0.5] * next(counts)}, alphas=(0, 0.5, 1))
    assert len(caught.value.found.records) == 2


def test_the_command_for_a_pair_of_folders_writes_a_new_folder(tmp_path, monkeypatch, wise):
    """The printed command writes a folder as its inputs are, not one that exists; with an output it says "again"."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "tuned"):
        Path(name).mkdir()
        Path(name, "config.json").write_text("{}")
        save_file({"weight": torch.full((4,), len(name) * 0.25)}, Path(name, "model.safetensors"))
    Path("merged").mkdir()
    measure = ("--command", "printf '{\"score\": 0.5}\\n%.0s' {file}", "--alphas", "0,0.5", "--results", "r.jsonl")
    result = wise("sweep", "base", "tuned", *measure)
    assert result.exit_code == 0, result.stderr
    (line,) = (line.strip() for line in result.stdout.splitlines() if line.startswith("    wise merge"))
    assert wise(*shlex.split(line)[1:]).exit_code == 0
    assert Path("wise-ft", "config.json").exists()
    assert "To write this mixture again:" in wise("sweep", "base", "tuned", *measure, "-o", "chosen").stdout

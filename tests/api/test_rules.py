"""The bench of rules: what it measures is what a merge and an evaluation give, for every rule and its control."""

import json
import shlex

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mergekit_wise.analysis.paired import evidence
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.rules import rules
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.merging import Rules
from mergekit_wise.merging.data_free import data_free_rules
from mergekit_wise.models.pairing import match
from mergekit_wise.models.source import open_source
from mergekit_wise.models.towers import create_clip
from mergekit_wise.results import AnswerStore

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
ASKED = {"suite": "digits-inverted,digits-noisy", "reference": "digits", "limit": 50, "alpha": 0.4}
METADATA = {"open_clip_config": json.dumps(CONFIG)}


def save(path, seed):
    torch.manual_seed(seed)
    visual = create_clip(CONFIG["model_cfg"]).visual
    tensors = {
        f"visual.{name}": tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in visual.state_dict().items()
    }
    head = {"classification_head.weight": torch.randn(10, 32), "classification_head.bias": torch.randn(10)}
    save_file(tensors | head, path, METADATA)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    sides = save(folder / "zs.safetensors", 0), save(folder / "ft.safetensors", 1)
    return sides, rules(*sides, **ASKED, results=folder / "r.jsonl", plot=folder / "r.svg"), folder


def by_name(report):
    """The records of every rule, by its name."""
    found = {}
    for record in report.records:
        if record.alpha is None:
            found.setdefault(record.model.partition(": ")[2], []).append(record)
    return found


def test_every_rule_is_measured_as_merging_and_evaluating_would(measured):
    """The weights' digests and the counts are those of the written file; MonoSoup's is made here, tensor by tensor."""
    sides, report, folder = measured
    found, path = by_name(report), folder / "merged.safetensors"
    first, second = (open_source(side) for side in sides)
    every = {rule.name: rule for rule in data_free_rules(match(first, second), Rules(0.4))}
    assert set(every) == set(found) == {result.name for result in report.results}
    for name, rule in every.items():
        if name == "MonoSoup":
            soup = rule.pair.finetuned
            with safe_open(sides[0], "pt") as zeroshot:
                tensors = {
                    tensor: torch.from_numpy(soup.read(tensor).copy()).view(soup.info(tensor).shape)
                    if soup.tensors[tensor] is not second.tensors[tensor]
                    else 0.6 * zeroshot.get_tensor(tensor)
                    + 0.4 * torch.from_numpy(second.read(tensor).copy()).view(second.info(tensor).shape)
                    for tensor in soup.tensors
                }
            save_file(tensors, path, METADATA)
        else:
            alphas = rule.rules.alphas(rule.pair.names)
            merge(*sides, path, alpha_for=[f"{tensor}={alpha!r}" for tensor, alpha in alphas.items()])
        alone = evaluate(path, ASKED["suite"], reference="digits", limit=50).records
        counted = [(record.dataset, record.weights, record.correct, record.total) for record in alone]
        assert [(r.dataset, r.weights, r.correct, r.total) for r in found[name]] == counted


def test_the_line_of_a_rule_makes_its_mixture(measured, wise, monkeypatch):
    """The line that the report gives is that of the merge that has the measured weights."""
    _, report, folder = measured
    monkeypatch.chdir(folder)
    given = [result for result in report.results if result.merge_command]
    assert {result.name for result in given} >= {"one alpha", "LiNeS"}
    for result in given:
        program, *words = shlex.split(result.merge_command)
        assert program == "wise"
        done = wise(*words)
        assert done.exit_code == 0, done.output
        alone = evaluate("merged.safetensors", "digits", limit=50).records[0]
        assert by_name(report)[result.name][0].weights == alone.weights


def test_gains_are_paired_differences_from_the_row_above(measured):
    """Each rule has its control directly above it, and the gain is the difference of their results."""
    _, report, folder = measured
    names = [result.name for result in report.results]
    store, records = AnswerStore.beside(folder / "r.jsonl"), by_name(report)
    for number, result in enumerate(report.results):
        if result.control is None:
            assert result.gains == ()
            continue
        assert names[number - 1] == result.control
        above = report.results[number - 1]
        for gain, value, other in zip(result.gains, result.values, above.values, strict=True):
            assert gain.value == pytest.approx(value.value - other.value, abs=1e-9)
        answers = [store.load(list(each)) for each in zip(records[result.name], records[result.control], strict=True)]
        alone = evidence(answers, {each.dataset: each.title for each in answers})
        wanted = alone.difference(alone.columns.index("average of shifts"), 0, 1)
        assert (result.gains[1].low, result.gains[1].high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_the_curve_is_that_of_single_alphas(measured):
    """From the zero-shot to the fine-tuned model, and drawn with the rules."""
    sides, report, folder = measured
    for place, side in ((0, sides[0]), (-1, sides[1])):
        alone = evaluate(side, ASKED["suite"], reference="digits", limit=50).records
        assert report.curve[place][0].value == alone[0].accuracy
        assert report.curve[place][1].value == pytest.approx((alone[1].accuracy + alone[2].accuracy) / 2)
    assert (folder / "r.svg").read_text().count("<g") > 20


def test_a_second_run_reuses_everything(measured, wise):
    """Nothing is measured again, and the table says how much each rule gains."""
    sides, report, folder = measured
    words = ["--suite", ASKED["suite"], "--reference", "digits", "--limit", "50", "--alpha", "0.4"]
    result = wise("rules", *sides, *words, "--results", folder / "r.jsonl")
    assert result.exit_code == 0, result.output
    assert f"{len(report.records)} results reused" in result.output
    assert "MonoSoup" in result.stdout
    found = json.loads(wise("rules", *sides, *words, "--results", folder / "r.jsonl", "--json").stdout)
    assert [rule["name"] for rule in found["rules"]] == [each.name for each in report.results]


def test_what_cannot_be_measured_is_refused(measured, tmp_path):
    """Without images, without answers, or for a plot without a shift, the message says what to do."""
    sides, _, _ = measured
    with pytest.raises(UsageError, match="Name what to evaluate on with"):
        rules(*sides)
    with pytest.raises(OutputError, match="needs a reference and a shift"):
        rules(*sides, suite="digits-noisy", plot=tmp_path / "x.png")
    asked = {**ASKED, "limit": 10, "results": tmp_path / "r.jsonl"}
    rules(*sides, **asked, answers=False)
    with pytest.raises(UsageError, match="without the answers for each image.*redo"):
        rules(*sides, **asked)

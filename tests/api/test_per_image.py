"""`sweep` with an alpha for each image: against plain logits, in the results file, on the page and in the terminal."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.api.report import write_report as make_report
from mergekit_wise.api.sweep import sweep
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.subsets import limited
from mergekit_wise.errors import UsageError
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.results import read_records, read_results

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIG = {
    "model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT},
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
SUITE, LIMIT, ALPHAS = "digits-inverted,digits-noisy", 60, (0.0, 0.4, 0.5, 0.6, 1.0)


def save(path, seed, scale):
    """A small classifier of ten classes."""
    torch.manual_seed(seed)
    visual = create_clip(CONFIG["model_cfg"]).visual.eval()
    weight = scale * torch.randn(10, 32)
    with torch.no_grad():  # features of a random tower hardly differ; what they share is taken off
        shared = torch.nn.functional.normalize(visual(torch.randn(64, 3, 32, 32)), dim=-1).mean(0)
    tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    tensors |= {"classification_head.weight": weight, "classification_head.bias": -weight @ shared}
    save_file(tensors, path, {"open_clip_config": json.dumps(CONFIG)})
    return path


@pytest.fixture
def sides(tmp_path):
    """A zero-shot and a fine-tuned model, whose certainties differ."""
    return save(tmp_path / "zs.safetensors", 0, 60.0), save(tmp_path / "ft.safetensors", 1, 90.0)


def entropies(path, dataset):
    """The entropy of each image's softmax, of the plain module."""
    checkpoint = open_checkpoint(path)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    preprocess = Preprocess.of(model.preprocess)
    pixels = [preprocess.normalise(preprocess.pixels(dataset.image(i))) for i in range(len(dataset))]
    with torch.inference_mode():
        shares = model.module(torch.stack(pixels)).double().softmax(dim=1).numpy()
    return -(shares * np.log(shares)).sum(axis=1)


def measured(sides, tmp_path, **options):
    """A sweep with an alpha for each image."""
    given = {"alphas": ALPHAS, "suite": SUITE, "limit": LIMIT, "workers": 0, "results": tmp_path / "r.jsonl"}
    return sweep(*sides, dynamic=True, **(given | options))


def test_each_image_has_the_answer_of_the_alpha_nearest_to_its_lambda(sides, tmp_path):
    """Without clusters the accuracy is that of picking, for each image, the prediction at the nearest swept alpha."""
    found = measured(sides, tmp_path, per_sample=tmp_path / "samples.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    answers = {(line["dataset"], line["alpha"], line["index"]): line["correct"] for line in lines}
    shared, own = found.dynamic
    values = {column.column: column.value for column in own.columns}
    used = set()
    for dataset in open_suite(SUITE, None).datasets:
        part = limited(dataset, LIMIT)
        zeroshot, finetuned = (entropies(side, part) for side in sides)
        lambdas = np.exp(-finetuned) / (np.exp(-zeroshot) + np.exp(-finetuned))
        nearest = [min(ALPHAS, key=lambda alpha, own=own: abs(alpha - own)) for own in lambdas]
        right = [answers[part.name, alpha, index] for index, alpha in enumerate(nearest)]
        assert values[part.title] == pytest.approx(np.mean(right))
        assert own.served[part.title] == {alpha: nearest.count(alpha) for alpha in sorted(set(nearest))}
        used |= set(nearest)
    assert len(used) > 1
    assert (shared.clusters, own.clusters) == (3, None)
    assert any("without their labels" in note for note in found.notes)
    best = {
        title: max(r.value for r in found.records if r.title == title) for title in values if "average" not in title
    }
    for column in own.columns[: len(best)]:
        assert column.over_best.value == pytest.approx(column.value - best[column.column])


def test_the_results_file_keeps_the_gains_once_and_the_page_draws_them(sides, tmp_path):
    """Another run adds no line and finds the same; records are read as before; each plot along alpha has the level."""
    first = measured(sides, tmp_path)
    held = (tmp_path / "r.jsonl").read_text()
    again = measured(sides, tmp_path)
    assert again.added == 0
    assert again.dynamic == first.dynamic
    assert (tmp_path / "r.jsonl").read_text() == held
    assert len(read_records(tmp_path / "r.jsonl")) == len(first.records)
    lines = [line for line in map(json.loads, held.splitlines()) if line.get("kind") == "dynamic"]
    assert [line["clusters"] for line in lines] == [3, None]
    for line, gain in zip(lines, first.dynamic, strict=True):
        for column, wanted in zip(line["columns"], map(asdict, gain.columns), strict=True):
            assert (column["column"], column["value"], column["best"]) == tuple(
                wanted[n] for n in ("column", "value", "best")
            )
            assert column["over_best"] == list(wanted["over_best"].values())
    findings = read_results([tmp_path / "r.jsonl"]).findings
    assert {finding.dataset for finding in findings} == {"digits-inverted", "digits-noisy"}
    make_report(tmp_path / "r.jsonl", output=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="guide per-image c0"') == 3  # two shifts and their average
    assert "an alpha for each image" in page


def test_a_damaged_line_is_noted_and_left_out(sides, tmp_path):
    """A report skips a line that holds nothing to draw, and says so; a later sweep is not disturbed."""
    measured(sides, tmp_path)
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write(
            '{"kind": "dynamic", "clusters": 0}\n{"kind": "dynamic", "clusters": 3, "columns": [{"value": 7}]}\n'
        )
    notes = read_results([tmp_path / "r.jsonl"]).notes
    assert any("an impossible number of clusters" in note for note in notes)
    assert any("without values" in note for note in notes)
    assert measured(sides, tmp_path).added == 0


def test_results_without_answers_say_how_to_get_them(sides, tmp_path):
    """Where the answers for each image are not kept, nothing is compared, and --redo measures them."""
    measured(sides, tmp_path, answers=False)
    assert not (tmp_path / "r.answers").exists()
    found = measured(sides, tmp_path)
    assert found.dynamic == ()
    assert any("`redo` measures them again" in note or "--redo measures them again" in note for note in found.notes)
    assert measured(sides, tmp_path, redo=True).dynamic
    shutil.rmtree(tmp_path / "r.answers")
    assert measured(sides, tmp_path).dynamic == ()


@pytest.mark.parametrize("alphas", [(0.5, 1.0), (0.0, 0.5)])
def test_both_ends_must_be_swept(alphas, sides, tmp_path):
    """Without alpha 0 or 1 the error names the one to add, before anything is measured."""
    missing = "0" if alphas[0] else "1"
    with pytest.raises(UsageError, match=rf"add alpha {missing}\."):
        measured(sides, tmp_path, alphas=alphas)
    assert not (tmp_path / "r.jsonl").exists()


def test_the_terminal_shows_a_table_for_clusters_and_one_for_every_image(sides, tmp_path, wise, monkeypatch):
    """Gains have a sign and an interval; --json holds them, too."""
    monkeypatch.chdir(tmp_path)
    words = ("sweep", *sides, "--suite", SUITE, "--limit", LIMIT, "--alphas", "0,0.5,1", "--dynamic", "--workers", 0)
    shown = wise(*words)
    assert shown.exit_code == 0, shown.output
    assert "3 for each data set" in shown.stdout
    assert "every image its own" in shown.stdout
    gains = json.loads(wise(*words, "--json").stdout)["dynamic"]
    text = " ".join(shown.stdout.split())
    for gain in gains:
        for column in gain["columns"][:2]:
            over = {name: 100 * number for name, number in column["over_best"].items()}
            assert f"{over['value']:+.2f} ({over['low']:+.2f} to {over['high']:+.2f})" in text

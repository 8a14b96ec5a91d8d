"""Image-text retrieval gets the sweep: the same resuming, choice, comparison and report as a suite of images."""

import json

import pytest

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.errors import MismatchError, ModelError, UsageError
from tests.evaluation.captioned import mixed, places_by_hand, write_captions, write_clip

FAST = {"precision": "fp32", "workers": 0, "results": "r.jsonl"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_captions(tmp_path)
    write_captions(tmp_path / "coco", images=12, name="coco.tsv", seed=5)
    write_clip(tmp_path / "zs.safetensors", 0)
    write_clip(tmp_path / "ft.safetensors", 1)
    return tmp_path


def swept(**options):
    given = {"evaluator": "retrieval:flickr.csv,coco/coco.tsv", "alphas": [0.0, 0.5, 1.0], **FAST, **options}
    return sweep("zs.safetensors", "ft.safetensors", **given)


def test_a_sweep_measures_both_directions_of_each_set(home):
    """The first set's images to texts are the reference, all others are shifts; counts are those of open_clip."""
    report = swept()
    columns = [(record.dataset, record.role, record.metric) for record in report.records[:4]]
    assert columns == [
        ("flickr image-to-text", "reference", "recall@1"),
        ("flickr text-to-image", "shift", "recall@1"),
        ("coco image-to-text", "shift", "recall@1"),
        ("coco text-to-image", "shift", "recall@1"),
    ]
    captions = [[]]
    samples = []
    for line in (home / "flickr.csv").read_text().splitlines()[1:]:
        path, text = line.split("\t")
        if path not in samples:
            samples.append(path)
            captions.append([])
        captions[-1] += [] if text in captions[-1] else [text]
    to_text, to_image = places_by_hand(mixed(0.5), samples, captions[1:])
    first, second = (record for record in report.records if record.alpha == 0.5 and record.dataset.startswith("flickr"))
    assert (first.correct, first.total) == ((to_text < 1).sum(), len(to_text))
    assert (second.correct, second.total) == ((to_image < 1).sum(), len(to_image))
    assert second.values == pytest.approx({f"recall@{k}": (to_image < k).mean() for k in (5, 10)})
    assert [answers.dataset for answers in report.answers] == [name for name, _, _ in columns]
    assert any("fp32 on cpu" in note for note in report.notes)


def test_a_sweep_is_resumed_unless_the_captions_changed(home):
    """An interrupted run, or one with more alphas, measures what is missing; other captions are measured again."""
    assert swept(alphas=[0.0, 1.0]).added == 8
    assert swept().added == 4
    assert swept().added == 0
    text = (home / "flickr.csv").read_text()
    (home / "flickr.csv").write_text(text.replace("\ta ", "\tthe ").replace("\tcat", "\tboat"))
    assert swept().added == 12


def test_a_merged_file_is_measured_as_its_mixture_was(home):
    """Setting weights in place gives the counts of the file."""
    merge("zs.safetensors", "ft.safetensors", "m.safetensors", alpha=0.5)
    alone = evaluate("m.safetensors", evaluator="retrieval:flickr.csv", **FAST | {"results": "m.jsonl"}).records
    of_sweep = swept(evaluator="retrieval:flickr.csv").records
    assert [(r.correct, r.values) for r in alone] == [(r.correct, r.values) for r in of_sweep if r.alpha == 0.5]
    assert {record.weights for record in alone} < {record.weights for record in of_sweep}


def test_the_reference_may_be_another_set(home):
    """By the name of the set, or of one of its directions."""
    for asked, expected in (("coco", "coco image-to-text"), ("flickr text-to-image", "flickr text-to-image")):
        records = swept(alphas=[0.5], reference=asked).records
        assert [record.dataset for record in records if record.role == "reference"] == [expected]
    with pytest.raises(UsageError, match="`reference` pets: is none of"):
        swept(reference="pets")


def test_models_without_both_encoders_are_refused(home):
    """A fine-tuned image encoder has another form; one alone lacks the text encoder."""
    state = {name: tensor for name, tensor in mixed(1.0).items() if name.startswith("visual.")}
    with pytest.raises(MismatchError, match="--keep 'zs:transformer|keep"):
        sweep("zs.safetensors", state, evaluator="retrieval:flickr.csv", alphas=[0.5], **FAST)
    with pytest.raises(ModelError, match="no text encoder"):
        evaluate(state, evaluator="retrieval:flickr.csv", **FAST)


def test_the_command_line_shows_recall_and_compares_and_reports(home, wise):
    """wise sweep, eval, compare and report."""
    words = ("--evaluator", "retrieval:flickr.csv", "--workers", 0)
    result = wise("sweep", "zs.safetensors", "ft.safetensors", *words, "--alphas", "0,1", "--plot", "p.png")
    assert result.exit_code == 0, result.output
    assert "recall@1" in result.stdout
    assert (home / "p.png").stat().st_size
    for name in ("zs", "ft"):
        result = wise("eval", f"{name}.safetensors", *words, "--results", f"{name}.jsonl")
        assert result.exit_code == 0, result.output
        assert "recall@10" in result.stdout
    result = wise("compare", "zs.jsonl", "ft.jsonl", "--json")
    assert result.exit_code == 0, result.output
    assert "flickr text-to-image" in result.stdout
    result = wise("report", "results.jsonl", "--output", "r.html")
    assert result.exit_code == 0, result.output
    assert "recall@5" in (home / "r.html").read_text()
    shown = wise("eval", "ft.safetensors", *words, "--results", "ft.jsonl", "--json")
    assert {entry["dataset"] for entry in json.loads(shown.stdout)} == {"flickr image-to-text", "flickr text-to-image"}


def test_options_that_retrieval_does_not_read_are_refused(home, wise):
    """Prompts and heads are for classes."""
    for words in (("--head", "zero-shot"), ("--classnames", "x.txt"), ("--balanced",)):
        result = wise("eval", "ft.safetensors", "--evaluator", "retrieval:flickr.csv", *words)
        assert result.exit_code == 2, result.output
    assert swept(alphas=[0.5], limit=5, batch_size=2).records[0].total == 5

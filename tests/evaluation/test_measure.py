"""Evaluations and sweeps write, reuse, leave out and refuse what they should."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.errors import ModelError, OutputError, ResultsError, SuiteError, Unsaved, UsageError
from mergekit_wise.results import read_records

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three folders of 4 x 5 images, two checkpoints with a head of 4 classes, one without a head."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        for folder in CLASSES:
            (home / name / folder).mkdir(parents=True)
            for number in range(5):
                pixels = rng.integers(0, 256, (20, 18, 3), np.uint8)
                Image.fromarray(pixels).save(home / name / folder / f"{number}.jpg")
    for seed, name in enumerate(("zs", "ft")):
        torch.manual_seed(seed)
        state = open_clip.CLIP(**CONFIG["model_cfg"]).state_dict()
        head = {"classification_head.weight": torch.randn(4, 16), "classification_head.bias": torch.zeros(4)}
        towers = {key: tensor.contiguous() for key, tensor in state.items()}
        metadata = {"open_clip_config": json.dumps(CONFIG)}
        save_file(towers | head, home / f"{name}.safetensors", metadata)
        save_file(towers, home / f"{name}-headless.safetensors", metadata)
    return home


@pytest.fixture
def run(home, tmp_path, predicted, listen):
    """Evaluate on some of the folders, with records in ``results.jsonl``."""

    def run(*names, model="zs", **options):
        suite = ",".join(str(home / name) for name in names)
        options = {"results": tmp_path / "results.jsonl", "workers": 0, "progress": listen, **options}
        return evaluate(home / f"{model}.safetensors", suite, **options)

    return run


@pytest.fixture
def predicted():
    """Titles of the data sets that are predicted, each with the number of images times variants."""
    return []


@pytest.fixture
def listen(predicted):
    """A progress callback that fills `predicted` with data sets; the task that they are parts of is left out."""

    def listen(task, done, total, unit):
        if unit == "images" and done == total and task != "evaluating":
            predicted.append((task, total))

    return listen


def test_a_second_run_measures_nothing_and_says_the_same(run, predicted, tmp_path):
    """With redo everything is measured and appended again."""
    first = run("one", "two")
    assert first.added == len(first.records) == 2
    again = run("one", "two")
    assert (again.records, again.added) == (first.records, 0)
    assert predicted == [("one", 20), ("two", 20)]
    assert run("one", "two", redo=True).added == 2
    assert len(read_records(tmp_path / "results.jsonl")) == 4


def test_images_that_are_kept_give_the_same_answers(run):
    """A note names the file that each data set is read from; with --no-cache there is none to read."""
    first = run("one", "two", cache_images=True)
    again = run("one", "two", cache_images=True, redo=True)
    plain = run("one", "two", redo=True)
    for each in (again, plain):
        assert [(r.correct, r.total) for r in each.records] == [(r.correct, r.total) for r in first.records]
    assert sum("read from the cache" in note for note in again.notes) == 2
    assert not [note for note in (*first.notes, *plain.notes) if "read from the cache" in note]
    with pytest.raises(UsageError, match="cache_images.* Leave one of them out"):
        run("one", cache_images=True, cache=False, redo=True)


def test_a_run_that_was_stopped_goes_on_where_it_was(run, predicted, tmp_path):
    """Complete data sets are kept, and only the others are measured."""

    def interrupt(what, done, total, unit):
        if what == "two" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"1 result saved in .*results\.jsonl; run the same command"):
        run("one", "two", "three", progress=interrupt)
    assert [record.title for record in read_records(tmp_path / "results.jsonl")] == ["one"]
    predicted.clear()
    rest = run("one", "two", "three")
    assert [title for title, _ in predicted] == ["two", "three"]
    assert [record.title for record in rest.records] == ["one", "two", "three"]
    fresh = run("one", "two", "three", redo=True)
    assert [(r.correct, r.key) for r in fresh.records] == [(r.correct, r.key) for r in rest.records]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "ft"},
        {"precision": "bf16"},
        {"limit": 9},
        {"head": "zero-shot"},
        {"per_sample": "samples"},
        {"per_class": "classes"},
    ],
)
def test_another_measurement_is_made(change, run, predicted, tmp_path):
    """A change of anything that the number or its details depend on causes a new measurement."""
    run("one")
    run("one", **{key: tmp_path / value if key.startswith("per") else value for key, value in change.items()})
    assert len(predicted) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "ft"}, ""),
        ({"precision": "bf16"}, "one: measured again: precision fp32 -> bf16."),
        ({"limit": 9}, "one: measured again: --limit none -> 9."),
        ({"head": "zero-shot"}, "head own, 4 classes -> zero-shot, the class names or templates changed."),
    ],
)
def test_why_it_is_measured_again_is_said(change, said, run):
    """A note names what differs from the earlier result of the same model, and is missing for another model."""
    assert not any("measured again" in note for note in run("one").notes)
    found = [note for note in run("one", **change).notes if "measured again" in note]
    assert len(found) == bool(said)
    assert said in "".join(found)


def test_the_reason_is_the_difference_from_the_nearest_result(home, run):
    """Images that changed are named, although a look at a part of them, which also differs, is more recent."""
    shutil.copytree(home / "one", home / "changed" / "one")
    run("changed/one")
    run("changed/one", limit=9)
    (home / "changed" / "one" / "ant" / "0.jpg").unlink()
    (said,) = [note for note in run("changed/one").notes if "measured again" in note]
    assert said == "one: measured again: the images, their labels or groups changed."


def test_of_results_of_one_measurement_the_most_complete_is_used(home, run):
    """A result that lacks images does not replace one that has them all, in whatever order they were measured."""
    shutil.copytree(home / "one", home / "large" / "one")
    Image.new("RGB", (100, 100)).save(home / "large" / "one" / "ant" / "large.png")
    for options in ({"max_pixels": 5000, "max_bad": 1}, {}, {"max_bad": 1}):
        report = run("large/one", **options)
    assert (report.records[0].total, report.records[0].bad, report.added) == (21, 0, 0)


def test_a_result_that_lacks_images_is_for_its_limit_of_pixels(home, run):
    """With another limit the image is read; a result with all images is used whatever the limit."""
    shutil.copytree(home / "one", home / "high" / "one")
    Image.new("RGB", (100, 100)).save(home / "high" / "one" / "ant" / "large.png")
    assert run("high/one", max_pixels=5000, max_bad=1).records[0].total == 20
    assert run("high/one", max_pixels=5000, max_bad=1).added == 0
    assert run("high/one", max_bad=1).records[0].total == 21
    assert run("high/one", max_pixels=20_000, max_bad=1).added == 0


def test_a_data_set_without_a_readable_image_is_no_matter_of_max_bad(home, run):
    """The error does not advise to tolerate more images than there are."""
    with pytest.raises(SuiteError, match="^one: no image can be read, so nothing can be measured") as error:
        run("one", max_pixels=10, max_bad=100)
    assert "Replace them, or tolerate" not in str(error.value)


def test_a_data_set_that_is_named_twice_is_said_to_count_twice(home, run, tmp_path):
    """Two tables with the same images, as after a path was copied, are named; different ones are not."""
    suite = tmp_path / "twice.toml"
    tables = "".join(
        f'[data.{name}]\nroot = "{home / root}"\n' for name, root in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    suite.write_text(f'reference = "a"\nshifts = ["b", "c"]\n{tables}')
    assert "a, b: the same images and labels, which count 2 times" in run(suite).notes
    assert not any("the same images" in note for note in run("one", "two").notes)


def test_results_of_an_earlier_version_are_measured_again_and_kept(run, predicted, tmp_path):
    """A record without the version of the measurement is of the first; a patch of a library changes nothing."""
    run("one")
    path = tmp_path / "results.jsonl"
    record = json.loads(path.read_text())
    record["versions"] |= {"torch": f"{record['versions']['torch']}.post9", "mergekit_wise": "99"}
    path.write_text(json.dumps(record) + "\n")
    assert run("one").added == 0
    del record["versions"]["measurement"]
    path.write_text(json.dumps(record) + "\n")
    found = run("one")
    assert found.added == 1
    assert any("another version of wise" in note for note in found.notes)
    assert len(read_records(path)) == 2


def test_a_results_file_of_another_kind_is_never_touched(run, tmp_path):
    """Neither --redo nor details, which read no results, append to a file of something else or repair its end."""
    path = tmp_path / "notes.txt"
    path.write_text("first line\nno line feed")
    for options in ({"redo": True}, {"per_class": tmp_path / "classes.csv"}, {}):
        with pytest.raises(ResultsError, match="line 1 is not a record"):
            run("one", results=path, **options)
    assert path.read_text() == "first line\nno line feed"


def test_no_file_of_a_data_set_is_replaced(run, home):
    """An output that exists in the folder of a data set is refused before anything is predicted."""
    image = home / "one" / "ant" / "1.jpg"
    before = image.read_bytes()
    for option in ("per_class", "per_sample"):
        with pytest.raises(OutputError, match="exists in the folder of the data set one"):
            run("two", "one", **{option: image})
    assert image.read_bytes() == before


def test_numbers_come_with_the_error_of_a_full_disk(run, predicted, tmp_path):
    """The error carries what was measured; the next run measures what the file does not hold."""
    run("one")
    results, full = tmp_path / "results.jsonl", Path("/dev/full")
    with pytest.raises(Unsaved, match="No space left on device") as caught:
        run("one", "two", results=full)
    assert [record.title for record in caught.value.found.records] == ["one"]
    predicted.clear()
    with pytest.raises(ResultsError, match="No space left on device"):  # for the heading of the table
        run("two", per_class=full)
    assert predicted == []
    with pytest.raises(Unsaved, match="No space left on device") as caught:
        run("two", per_sample=full)
    assert [record.title for record in caught.value.found.records] == ["two"]
    assert [record.title for record in read_records(results)] == ["one", "two"]
    predicted.clear()
    assert run("one", "two").added == 0
    assert predicted == []


def test_a_file_that_changed_is_measured_again(run, predicted, home, tmp_path):
    """The fingerprint of the data has changed."""
    run("one")
    Image.new("RGB", (99, 99)).save(home / "one" / "ant" / "0.jpg")
    run("one")
    assert len(predicted) == 2


def test_what_names_do_not_change_is_not_measured_again(home, predicted, listen, tmp_path):
    """A sweep's weights are those of the merged file, whose records are added under the file's own name."""
    results = tmp_path / "results.jsonl"
    suite = f"{home / 'one'},{home / 'two'}"
    ends = home / "zs.safetensors", home / "ft.safetensors"
    swept = sweep(*ends, alphas=(0, 0.25, 1), suite=suite, results=results, workers=0)
    assert (swept.added, len(swept.records)) == (6, 6)
    merge(*ends, tmp_path / "merged.safetensors", alpha=0.25)
    found = evaluate(tmp_path / "merged.safetensors", suite, results=results, workers=0)
    assert found.added == 0
    assert [r.model for r in found.records] == ["merged.safetensors"] * 2
    assert [replace(r, model=swept.records[0].model, pair=swept.records[0].pair) for r in found.records] == [
        r for r in swept.records if r.alpha == 0.25
    ]
    assert len(read_records(results)) == 8
    predicted.clear()
    more = sweep(*ends, alphas=(0, 0.25, 0.5, 1), suite=suite, results=results, workers=0, progress=listen)
    assert predicted == [("one", 20), ("two", 20)]
    assert [(r.alpha, r.title) for r in more.records] == [(a, t) for a in (0, 0.25, 0.5, 1) for t in ("one", "two")]


def test_a_sweep_without_heads_makes_one_for_each_alpha(home, tmp_path):
    """Each head is built by the mixed text tower; predictions are those of the merged file."""
    ends = home / "zs-headless.safetensors", home / "ft-headless.safetensors"
    swept = sweep(*ends, alphas=(0.5, 1), suite=str(home / "one"), workers=0, per_sample=tmp_path / "swept")
    merge(*ends, tmp_path / "merged.safetensors", alpha=0.5)
    evaluate(tmp_path / "merged.safetensors", str(home / "one"), workers=0, per_sample=tmp_path / "merged")
    lines = [json.loads(line) for line in (tmp_path / "swept").read_text().splitlines()]
    merged = [json.loads(line) for line in (tmp_path / "merged").read_text().splitlines()]
    assert [x["predicted"] for x in lines if x["alpha"] == 0.5] == [x["predicted"] for x in merged]
    assert {x["alpha"] for x in lines} == {0.5, 1}
    assert swept.recommendation.alpha in (0.5, 1)


def test_an_unreadable_image_is_named_and_left_out(run, home):
    """The record counts unreadable images, and is not reused if it has more than are allowed now."""
    path = home / "three" / "bee" / "3.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    try:
        with pytest.raises(SuiteError, match=str(path)):
            run("three")
        found = run("three", max_bad=1)
        (record,) = found.records
        assert (record.total, record.bad) == (19, 1)
        assert any(str(path) in note for note in found.notes)
        with pytest.raises(SuiteError, match="three: 1 image"):
            run("three")
    finally:
        path.write_bytes(whole)


def test_a_limit_and_its_draw_are_recorded(run):
    """A limit that is larger than the data set is not recorded."""
    (record,) = run("one", limit=8, seed=3).records
    assert (record.total, record.limit, record.seed, record.draw) == (8, 8, 3, "proportional")
    (record,) = run("one", limit=8, seed=3, balanced=True).records
    assert (record.total, record.limit, record.seed, record.draw) == (8, 8, 3, "balanced")
    (record,) = run("one", limit=500).records
    assert (record.total, record.limit, record.seed, record.draw) == (20, None, None, "")
    with pytest.raises(UsageError, match="balanced"):
        run("one", balanced=True)


def test_a_head_from_a_file_is_used_and_recorded(run, home, tmp_path):
    """A head that always predicts one class is right about that class alone, and is named in the record."""
    bias = torch.tensor([0.0, 9.0, 0.0, 0.0])
    save_file({"classification_head.weight": torch.zeros(4, 16), "classification_head.bias": bias}, tmp_path / "head")
    (record,) = run("one", model="zs-headless", head=tmp_path / "head").records
    assert (record.correct, record.total) == (5, 20)
    assert record.head.startswith("head ")


def test_heads_and_templates_that_do_not_fit_are_refused(run, home, tmp_path):
    """The error is raised before anything is measured."""
    with pytest.raises(ModelError, match=r"4 classes, the model's head 3.*wise zeroshot"):
        save_file({"weight": torch.zeros(3, 16)}, tmp_path / "head")
        run("one", model="zs-headless", head=tmp_path / "head")
    with pytest.raises(UsageError, match="head. zero-shot"):
        run("one", templates=("a {}.",))
    run("one", templates=("a {}.",), head="zero-shot")


def test_senseless_numbers_and_paths_are_refused(run, home, tmp_path):
    """The error names the option, and is raised at once."""
    with pytest.raises(UsageError, match="max_bad. -1: expected at least 0"):
        run("one", max_bad=-1)
    with pytest.raises(UsageError, match="precision"):
        run("one", precision="int8")
    with pytest.raises(ResultsError, match="does not exist"):
        evaluate(home / "zs.safetensors", str(home / "one"), results=tmp_path / "no" / "r")


def test_missing_data_sets_are_reported_and_recorded(home, tmp_path):
    """With strict a missing data set is an error."""
    (tmp_path / "root").mkdir()
    names = f"{home / 'one'},imagenet-r"
    found = evaluate(home / "zs.safetensors", names, data=tmp_path / "root", workers=0)
    assert [part.name for part in found.missing] == ["imagenet-r"]
    assert [record.missing for record in found.records] == [("imagenet-r",)]
    with pytest.raises(SuiteError, match="imagenet-r"):
        evaluate(home / "zs.safetensors", names, data=tmp_path / "root", strict=True)


def test_weights_that_overflow_are_noted(home, tmp_path):
    """Images with NaN logits count as wrong, and a note says so."""
    from safetensors.torch import load_file

    state = load_file(home / "zs.safetensors")
    state["visual.proj"][:] = float("nan")
    save_file(state, tmp_path / "nan", {"open_clip_config": json.dumps(CONFIG)})
    found = evaluate(tmp_path / "nan", str(home / "one"), workers=0)
    assert (found.records[0].correct, found.records[0].unsound) == (0, 20)
    (note,) = [note for note in found.notes if "20 images" in note]
    assert "--precision fp32" in note

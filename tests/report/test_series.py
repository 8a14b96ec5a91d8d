"""Measurements of one model in several ways: which is shown under its name, and what the others are called."""

import pytest

from mergekit_wise.report.comparison import SHIFTS
from mergekit_wise.report.page_tables import results_table
from mergekit_wise.report.summary import summarize

WHOLE = {"data": "whole", "precision": "fp32", "head": "own", "architecture": "ViT (from its metadata)"}
ALPHAS = (0.0, 0.5, 1.0)


@pytest.fixture
def alone(compared):
    """A function that returns the only comparison of files with the given lines, and the warnings."""

    def build(*files):
        (comparison,), said = compared(*files)
        return comparison, said

    return build


@pytest.fixture
def look(lines):
    """A function that returns the lines of a sweep of a random part of each data set, with every image right."""

    def build(limit=10, alphas=ALPHAS, **other):
        facts = {**WHOLE, "data": f"part {limit}", "limit": limit, "seed": 0, "draw": "proportional", **other}
        return lines.sweep(alphas, total=limit, correct=limit, **facts)

    return build


def names(comparison):
    return [curve.name for curve in comparison.curves]


@pytest.mark.parametrize("first", ["look", "whole"])
def test_a_look_at_ten_images_never_replaces_the_whole_measurement(alone, lines, look, first):
    """Whichever was measured first, the whole one has the name, the averages, the recommendation and the bold type."""
    whole = lines.sweep(ALPHAS, **WHOLE)
    files = {"look": look() + whole, "whole": whole + look()}
    comparison, warned = alone(files[first])
    alone, _ = alone(whole)
    assert names(comparison) == ["zs.pt + ft.pt", "zs.pt + ft.pt (--limit 10)"]
    assert [(each.title, each.parts) for each in comparison.columns] == [(c.title, c.parts) for c in alone.columns]
    assert comparison.curves[0].rows == alone.curves[0].rows
    assert {row.total for row in comparison.curves[1].rows.values()} == {10}
    assert summarize(comparison).recommendations[0] == summarize(alone).recommendations[0]
    best = [row.alpha for row in results_table(summarize(comparison)).body for cell in row.cells if cell.best]
    assert best == [row.alpha for row in results_table(summarize(alone)).body for cell in row.cells if cell.best]
    (said,) = [each for each in warned if "never mixed" in each]
    assert "'zs.pt + ft.pt (--limit 10)' (40 images)" in said


def test_a_part_of_a_suite_does_not_take_shifts_from_the_average(alone, lines, look):
    """A look at the reference alone leaves the average over all shifts of the whole measurement."""
    small = [each for each in look() if each["dataset"] == "imagenet"]
    comparison, warned = alone(lines.sweep(ALPHAS, **WHOLE) + small)
    assert next(c for c in comparison.columns if c.name == SHIFTS).title == "Average of 3 shifts"
    assert not any("left out of averages" in each for each in warned)


def test_of_looks_alone_the_largest_counts(alone, look):
    """Without a whole measurement the one of the most images has the name."""
    comparison, _ = alone(look(10) + look(90) + look(30))
    assert names(comparison)[0] == "zs.pt + ft.pt"
    assert [next(iter(curve.rows.values())).total for curve in comparison.curves] == [90, 30, 10]
    assert names(comparison)[1:] == ["zs.pt + ft.pt (--limit 30)", "zs.pt + ft.pt (--limit 10)"]


def test_draws_and_seeds_are_kept_apart(alone, look):
    """Two draws of as many images are two measurements; a limit of an earlier version was balanced."""
    old = [{name: value for name, value in each.items() if name != "draw"} for each in look(data="b")]
    comparison, _ = alone(look(seed=3, data="s") + old + look())
    assert names(comparison)[0] == "zs.pt + ft.pt"
    assert set(names(comparison)[1:]) == {"zs.pt + ft.pt (--seed 3)", "zs.pt + ft.pt (balanced draw)"}


def test_a_data_set_smaller_than_the_limit_belongs_to_the_look_too(alone, lines, look):
    """It is recorded as whole, and no series of its own is made of it."""
    small = [lines.entry("imagenet-a", alpha, **WHOLE, total=9, correct=4) for alpha in ALPHAS]
    others = [each for each in look() if each["dataset"] != "imagenet-a"]
    comparison, _ = alone(others + small)
    (curve,) = comparison.curves
    assert {name for _, name in curve.rows} == {"imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a"}
    whole = [each for each in lines.sweep(ALPHAS, **WHOLE) if each["dataset"] != "imagenet-a"]
    comparison, _ = alone(others + small + whole)
    assert [len(curve.rows) for curve in comparison.curves] == [12, 12]


def test_weights_under_one_name_are_kept_apart(alone, lines):
    """A fine-tuned file that was replaced has a curve of its own, and alpha 0, which is the same, is in both."""
    first = lines.sweep(ALPHAS, **WHOLE, pair="zs+a")
    second = [
        {**each, "weights": each["weights"] if each["alpha"] == 0 else f"b{each['alpha']}"}
        for each in lines.sweep(ALPHAS, **WHOLE, pair="zs+b", loss=0.1)
    ]
    comparison, _ = alone(first + second)
    assert [len(curve.rows) for curve in comparison.curves] == [12, 12]
    assert {curve.rows[1.0, "imagenet"].weights for curve in comparison.curves} == {"b1.0", f"{1000:016x}"}
    assert comparison.curves[0].rows[1.0, "imagenet"].weights == "b1.0"  # of equal ones the latest has the name
    # A mixture that was measured later belongs to the pair that it is of.
    later = lines.sweep([0.25], **WHOLE, pair="zs+a")
    comparison, _ = alone(first + second + later)
    assert {curve.alphas for curve in comparison.curves} == {ALPHAS, (0.0, 0.25, 0.5, 1.0)}
    assert next(c for c in comparison.curves if 0.25 in c.alphas).rows[1.0, "imagenet"].weights == f"{1000:016x}"


def test_weights_of_one_file_name_are_kept_apart_without_a_pair(alone, lines):
    """The records of earlier versions, and of `wise eval`, are distinguished by their weights alone."""
    comparison, _ = alone([each for w in ("w1", "w2") for each in lines.sweep([None], weights=w, model="m.pt")])
    assert names(comparison) == ["m.pt", "m.pt (other weights w1)"]


def test_records_of_an_earlier_version_that_were_repeated_are_not_another_series(alone, lines):
    """The earlier version did not record the pair; the same weights, settings and images are the same measurement."""
    comparison, warned = alone(lines.sweep(ALPHAS, **WHOLE) + lines.sweep(ALPHAS, **WHOLE, pair="zs+a"))
    assert names(comparison) == ["zs.pt + ft.pt"]
    assert warned == ()


def test_settings_never_share_a_row(alone, lines):
    """Two data sets that were measured in two precisions are in two rows, though neither was measured in both."""
    fp32 = lines.sweep(ALPHAS, ("imagenet",), **WHOLE)
    bf16 = lines.sweep(ALPHAS, ("imagenet-v2",), **{**WHOLE, "precision": "bf16"})
    comparison, _ = alone(fp32 + bf16)
    assert names(comparison) == ["zs.pt + ft.pt", "zs.pt + ft.pt (bf16)"]
    for curve in comparison.curves:
        assert len({row.details["precision"] for row in curve.rows.values()}) == 1


def test_who_declared_the_architecture_makes_no_series(alone, lines):
    """The same architecture, known from another source, is the same setting."""
    other = lines.sweep([1.0], **{**WHOLE, "architecture": "ViT (from --model ViT)"})
    comparison, _ = alone(lines.sweep([0.0, 0.5], **WHOLE) + other)
    assert names(comparison) == ["zs.pt + ft.pt"]


def test_only_results_on_the_same_images_are_alone(alone, lines):
    """With two files, a better result on other images is not in bold, and the caption says so."""
    ours = lines.sweep(ALPHAS, **WHOLE)
    theirs = lines.sweep(ALPHAS, **{**WHOLE, "data": "other"}, loss=-0.05)
    comparison, warned = alone(ours, theirs)
    table = results_table(summarize(comparison))
    assert "same" in table.caption
    assert {row.curve for row in table.body for cell in row.cells if cell.best} == {0}
    assert any("different images (whole, other)" in each for each in warned)


def test_an_analysis_belongs_to_the_models_and_images_that_it_is_of(alone, lines, look):
    """The analysis of a part of the images is not shown as that of all, nor that of other weights."""
    about = {"kind": "analysis", "model": "zs.pt + ft.pt", "suite": "imagenet-shifts", "dataset": "imagenet"}
    ends = {"zeroshot": f"{0:016x}", "finetuned": f"{1000:016x}"}
    part = {**about, **ends, "data": "part 10", "values": {"cka complement": 0.5}}
    stale = {**about, **ends, "finetuned": "ff", "data": "whole", "values": {"cka complement": 0.7}}
    comparison, warned = alone([*lines.sweep(ALPHAS, **WHOLE), *look(), part, stale])
    whole, looked = comparison.curves
    assert whole.findings == {}
    assert looked.findings["imagenet"].values == {"cka complement": 0.5}
    assert any("analysis of imagenet has no matching record" in each for each in warned)

"""Measurements side by side, the warnings about them, and what analysis says of them."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from mergekit_wise.report.comparison import BOTH, SHIFTS
from mergekit_wise.report.page_tables import analysis_tables
from mergekit_wise.report.summary import baseline_of, robustness, summarize


def column(comparison, name):
    return next(each for each in comparison.columns if each.name == name)


def test_columns_are_the_reference_then_shifts_then_averages(compared, lines):
    """The order of columns does not depend on the order of lines."""
    ((comparison,), warned) = compared(list(reversed(lines.sweep())))
    assert comparison.columns[0].name == "imagenet"
    assert {each.name for each in comparison.columns[1:4]} == {"imagenet-v2", "imagenet-sketch", "imagenet-a"}
    assert [each.title for each in comparison.columns[4:]] == ["Average of 3 shifts", "Average of both"]
    assert warned == ()


def test_averages_are_means_of_data_sets(compared, lines):
    """Each shift counts the same, however many images it has, and the reference counts as much as all shifts."""
    ((comparison,), _) = compared(lines.sweep([0.5]))
    shares = {row["dataset"]: row["correct"] / row["total"] for row in lines.sweep([0.5])}
    shifts = np.mean([share for name, share in shares.items() if name != "imagenet"])
    (curve,) = comparison.curves
    assert curve.result(0.5, column(comparison, SHIFTS)).value == pytest.approx(shifts)
    both = curve.result(0.5, column(comparison, BOTH)).value
    assert both == pytest.approx((shares["imagenet"] + shifts) / 2)


def test_the_interval_of_an_average_holds_95_percent(compared, lines):
    """The interval agrees with a simulation of the data sets' binomial counts."""
    ((comparison,), _) = compared(lines.sweep([0.5]))
    result = comparison.curves[0].result(0.5, column(comparison, SHIFTS))
    draw = np.random.default_rng(0)
    rows = [row for row in lines.sweep([0.5]) if row["role"] == "shift"]
    drawn = np.mean([draw.binomial(r["total"], r["correct"] / r["total"], 100_000) / r["total"] for r in rows], axis=0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (result.low, result.high) == pytest.approx((low, high), abs=3e-4)


def test_an_average_over_the_same_images_has_the_interval_of_one_of_them(compared, lines):
    """If three shifts are made of the same images and equally well solved, their mean is as uncertain as each."""
    sets = {f"c-{name}": lines.entry("imagenet-v2", 0.5, dataset=f"c-{name}", same_images="imagenet") for name in "xyz"}
    ((comparison,), _) = compared(list(sets.values()))
    curve = comparison.curves[0]
    mean, one = (astuple(curve.result(0.5, column(comparison, name))) for name in (SHIFTS, "c-x"))
    assert mean == pytest.approx(one)


def test_the_latest_of_equal_measurements_counts(compared, lines):
    """Of repeated measurements the latest is used, and a warning names them if their results differ."""
    again = lines.entry("imagenet", 0.5, correct=5000)
    ((comparison,), warned) = compared([*lines.sweep([0, 0.5, 1]), again])
    assert comparison.curves[0].result(0.5, comparison.reference).value == 0.1
    assert any("more than once" in each and "alpha 0.5 on imagenet" in each for each in warned)
    (_, warned) = compared([*lines.sweep([0, 0.5, 1]), *lines.sweep([0.5])])
    assert warned == ()


def test_alphas_that_differ_by_rounding_are_one(compared, lines):
    """The sum 0.1 + 0.2 is the same alpha as 0.3."""
    ((comparison,), _) = compared([lines.entry("imagenet", 0.1 + 0.2), lines.entry("imagenet-v2", 0.3)])
    assert comparison.curves[0].alphas == (0.3,)


def test_suites_are_shown_separately(compared, lines):
    """Every suite is a comparison of its own, and a warning names the suites."""
    (comparisons, warned) = compared([*lines.sweep(), *lines.sweep(suite="other")])
    assert [each.suite for each in comparisons] == ["imagenet-shifts", "other"]
    assert any("2 suites (imagenet-shifts, other)" in each and "--suite" in each for each in warned)


def test_models_in_one_file_are_shown_separately(compared, lines):
    """Every model of a file has a curve of its own, named after the model."""
    ((comparison,), warned) = compared([*lines.sweep(), *lines.sweep(model="c + d")])
    assert [curve.name for curve in comparison.curves] == ["zs.pt + ft.pt", "c + d"]
    assert any("file0 holds 2 models (zs.pt + ft.pt, c + d)" in each for each in warned)


def test_files_are_compared_by_their_names(compared, lines):
    """Curves are named after their files, and after the model too if a file holds several."""
    ((comparison,), _) = compared(lines.sweep(), [*lines.sweep(), *lines.sweep(model="c + d")])
    assert [curve.name for curve in comparison.curves] == ["file0", "file1: zs.pt + ft.pt", "file1: c + d"]


def test_averages_are_over_shifts_that_every_model_has(compared, lines):
    """Shifts that a model lacks are left out of averages, and a warning names them."""
    part = [each for each in lines.sweep(model="part") if each["dataset"] != "imagenet-a"]
    ((comparison,), warned) = compared([*lines.sweep(), *part])
    assert column(comparison, SHIFTS).title == "Average of 2 shifts"
    assert set(column(comparison, SHIFTS).parts) == {"imagenet-v2", "imagenet-sketch"}
    assert any("ImageNet-A" in each and "averages" in each for each in warned)


def test_a_gap_leaves_no_average(compared, lines):
    """There is no average if a part of it was not measured, and a warning names the gap."""
    kept = [each for each in lines.sweep() if (each["alpha"], each["dataset"]) != (0.3, "imagenet-a")]
    ((comparison,), warned) = compared(kept)
    (curve,) = comparison.curves
    assert curve.result(0.3, column(comparison, "imagenet-a")) is None
    assert curve.result(0.3, column(comparison, SHIFTS)) is None
    assert curve.result(0.3, column(comparison, "imagenet")) is not None
    assert any("alpha 0.3 on ImageNet-A" in each for each in warned)


@pytest.mark.parametrize(("end", "name"), [(0.0, "zero-shot"), (1.0, "fine-tuned")])
def test_a_missing_model_is_reported(compared, lines, end, name):
    """Without one of the two models there is a warning and no connectivity, and all else is there."""
    ((comparison,), warned) = compared([each for each in lines.sweep() if each["alpha"] != end])
    assert any(f"zs.pt + ft.pt: alpha {end:g} ({name})" in each for each in warned)
    summary = summarize(comparison)
    assert summary.connectivities == ({},)
    assert summary.recommendations[0].alpha == 0.5


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"versions": {"torch": "2.7.0"}}, "torch 2.15.0, 2.7.0"),
        ({"weights": "ff"}, "'zs.pt + ft.pt (other weights ff)'"),
        ({"total": 12345, "correct": 12000}, "'zs.pt + ft.pt (other images or labels)' (12,345 images)"),
        ({"metric": "macro-f1", "value": 0.5}, "'zs.pt + ft.pt (macro-f1)'"),
        ({"data": "0a"}, "'zs.pt + ft.pt (other images or labels)'"),
        ({"prompts": "0a"}, "'zs.pt + ft.pt (other class names or templates)'"),
        ({"precision": "bf16"}, "'zs.pt + ft.pt (bf16)'"),
        ({"head": "zero-shot"}, "'zs.pt + ft.pt (head zero-shot)'"),
        ({"preprocess": {"size": 9}}, "'zs.pt + ft.pt (other preprocessing)'"),
        ({"columns": "0a"}, "'zs.pt + ft.pt (another mapping of classes)'"),
        ({"limit": 50, "seed": 0, "total": 50, "correct": 9}, "(--limit 50, balanced draw)' (50 images)"),
        ({"expected": 50001}, "ImageNet: 50,000 images; the complete data set has 50,001"),
        ({"limit": 50000, "expected": 90000}, "Random subset of at most 50000 images: ImageNet"),
        ({"bad": 3}, "ImageNet: 3 images could not be read"),
        ({"unsound": 3}, "ImageNet: 3 images had infinite or NaN outputs"),
        ({"missing": ["objectnet"]}, "imagenet-shifts that were not found: objectnet"),
    ],
    ids=str,
)
def test_records_that_are_not_comparable_are_reported(compared, lines, change, warning):
    """A warning appears if one record of twenty differs in what makes numbers comparable."""
    _, found = compared([*lines.sweep(ALL_BUT_ONE), *lines.sweep([1], LAST), lines.entry("imagenet", 1.0, **change)])
    assert any(warning in each for each in found), found


ALL_BUT_ONE = (0.0, 0.25, 0.5, 0.75)
LAST = ("imagenet-v2", "imagenet-sketch", "imagenet-a")


def test_without_a_reference_shifts_are_still_compared(compared, lines):
    """Shifts have averages and losses without a reference, and a warning says that it is missing."""
    ((comparison,), warned) = compared(lines.sweep(names=("imagenet-v2", "imagenet-a")))
    assert comparison.reference is None
    assert [each.name for each in comparison.columns] == ["imagenet-v2", "imagenet-a", SHIFTS]
    assert any("no reference was measured" in each for each in warned)
    (losses,) = summarize(comparison).losses
    assert set(losses) >= {"imagenet-v2", "imagenet-a", SHIFTS}


def test_losses_are_against_the_best_alpha_of_each_column(compared, lines):
    """The losses are those of the paper's Table 3, computed by hand."""
    ((comparison,), _) = compared(lines.sweep())
    found = summarize(comparison).losses[0]
    for name in ("imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a"):
        shares = {row["alpha"]: row["correct"] / row["total"] for row in lines.sweep() if row["dataset"] == name}
        assert shares[found[name].alpha] == max(shares.values())
        assert found[name].loss == pytest.approx(max(shares.values()) - shares[0.5])


def test_a_model_of_unknown_alpha_has_a_curve(compared, lines):
    """A checkpoint from `wise eval` has a curve without merged models and without a recommendation."""
    ((comparison,), warned) = compared([*lines.sweep(), *lines.sweep([None], model="other.pt")])
    assert comparison.curves[1].alphas == (None,)
    assert comparison.curves[1].mixtures == ()
    assert summarize(comparison).recommendations[1] is None
    assert not any("was not measured" in each for each in warned)


def test_an_unknown_interval_makes_the_averages_unknown(compared, lines):
    """An average over a number without an interval has no interval, rather than one that is too narrow."""
    odd = [
        {**each, "metric": "macro-f1", "value": 0.25} if each["dataset"] == "imagenet-a" else each
        for each in lines.sweep()
    ]
    ((comparison,), _) = compared(odd)
    assert math.isnan(comparison.curves[0].result(0.5, column(comparison, SHIFTS)).low)


@pytest.mark.parametrize(
    ("reference", "metric", "known"),
    [("imagenet", "top-1", True), ("photos", "top-1", False), ("imagenet", "macro-f1", False)],
)
def test_a_baseline_is_for_its_reference_and_for_accuracy(compared, lines, reference, metric, known):
    """The published line of ImageNet-V2 predicts accuracy from ImageNet's; for other pairs there is no number."""
    rows = [
        row | {"dataset": reference}
        if row["dataset"] == "imagenet"
        else row | {"metric": metric, "value": row["correct"] / row["total"]}
        for row in lines.sweep(names=("imagenet", "imagenet-v2"))
    ]
    (comparison,), _ = compared(rows)
    shift = column(comparison, "imagenet-v2")
    assert (baseline_of(comparison, shift) is not None) == known
    assert (robustness(comparison, comparison.curves[0], 0.5, shift) is not None) == known


@pytest.mark.parametrize(("correct", "outside"), [(900, True), (700, False)])
def test_effective_robustness_beyond_the_fitted_models_is_marked(compared, lines, correct, outside):
    """A model that is better on ImageNet than all models of the line has a dagger."""
    rows = [
        row | ({"correct": correct, "total": 1000} if row["dataset"] == "imagenet" else {})
        for row in lines.sweep(names=("imagenet", "imagenet-v2"))
    ]
    (comparison,), _ = compared(rows)
    rho = robustness(comparison, comparison.curves[0], 0.5, column(comparison, "imagenet-v2"))
    assert rho.is_extrapolated == outside
    tables = analysis_tables(summarize(comparison))
    (shown,) = [table for table in tables if table.title == "Effective robustness"]
    assert any("†" in text for row in shown.rows for text in row) == outside

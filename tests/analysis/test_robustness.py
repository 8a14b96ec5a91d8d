"""Effective robustness against the formula, and against the paper's numbers."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from mergekit_wise.analysis import (
    BASELINES,
    IMAGENET_BASELINES,
    AverageBaseline,
    Baseline,
    Estimate,
    effective_robustness,
    from_axis,
    to_axis,
)


def counts(share, total):
    return round(share * total), total


@pytest.mark.parametrize(("axis", "forth"), [("logit", logit), ("probit", norm.ppf)])
def test_axes_are_scipys(axis, forth):
    """The transforms and their inverses agree with SciPy's."""
    x = np.linspace(0.01, 0.99, 50)
    assert to_axis(x, axis, 10_000) == pytest.approx(forth(x), abs=1e-12)
    assert from_axis(to_axis(x, axis, 10_000), axis) == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("axis", ["logit", "probit"])
def test_nothing_and_everything_right_are_half_an_image_inside(axis):
    """Accuracies 0 and 1 are moved inside by half an image."""
    assert from_axis(to_axis([0, 1, 0.5], axis, 200), axis) == pytest.approx([0.0025, 0.9975, 0.5])
    assert to_axis(1 / 200, axis, 200) > to_axis(0, axis, 200)


@pytest.mark.parametrize("shift", BASELINES)
@pytest.mark.parametrize("x", [0.55, 0.76, 0.9])
def test_rho_is_the_papers_formula(shift, x):
    """The value is rho = Acc_shift - sigmoid(a logit(Acc_ref) + b)."""
    line = BASELINES[shift]
    if not isinstance(line, Baseline):
        line = line.below if x <= line.split else line.above
    wanted = 0.5 - 1 / (1 + math.exp(-(line.a * math.log(x / (1 - x)) + line.b)))
    assert effective_robustness((500, 1000), counts(x, 1000), BASELINES[shift]).value == pytest.approx(
        wanted, abs=1e-12
    )


# Per cent, ViT-L/14@336px, the paper's Table 1: ImageNet and V2, where the reference is all of ImageNet, and Sketch.
TABLE_1 = {"zero-shot": (76.6, 70.5, 60.9), "fine-tuned": (86.2, 76.8, 57.9), "alpha 0.5": (86.8, 79.5, 64.7)}


def test_the_papers_models_are_where_the_paper_says():
    """Fine-tuning loses effective robustness, and the merged model keeps part of it (the paper's Figure 1)."""
    v2, sketch = (
        {
            name: effective_robustness(
                counts(row[column] / 100, images), counts(row[0] / 100, 50_000), BASELINES[f"imagenet-{shift}"]
            )
            for name, row in TABLE_1.items()
        }
        for column, shift, images in ((1, "v2", 10_000), (2, "sketch", 50_889))
    )
    assert v2["fine-tuned"].value == pytest.approx(0, abs=0.005)
    assert v2["fine-tuned"].low < 0 < v2["fine-tuned"].high
    for rho in (v2, sketch):
        assert rho["zero-shot"].above(rho["alpha 0.5"])
        assert rho["alpha 0.5"].above(rho["fine-tuned"])


def test_a_model_trained_on_imagenet_alone_has_none():
    """A ResNet-50 (76.13 on ImageNet, 63.20 on V2; Taori et al.) is on the baseline."""
    rho = effective_robustness(counts(0.6320, 10_000), counts(0.7613, 50_000), BASELINES["imagenet-v2"])
    assert rho.value == pytest.approx(0, abs=0.015)


def test_the_table_says_on_which_classes_the_reference_is_taken():
    """The baselines of R, A and ObjectNet predict from ImageNet restricted to their classes."""
    assert {name: line.reference for name, line in BASELINES.items()} == {
        "imagenet-v2": "ImageNet",
        "imagenet-sketch": "ImageNet",
        "imagenet-r": "ImageNet, R's classes",
        "objectnet": "ImageNet, ObjectNet's classes",
        "imagenet-a": "ImageNet, A's classes",
    }


def test_the_line_of_imagenet_a_bends_at_the_accuracy_of_a_resnet_50():
    """A model at 98 % and 78 % has 0.7 points; a single line through all models would credit it with 25.2."""
    line = BASELINES["imagenet-a"]
    assert effective_robustness((7800, 10_000), (9800, 10_000), line).value == pytest.approx(0.007, abs=5e-4)
    single = Baseline(1.99, -7.6325)
    assert effective_robustness((7800, 10_000), (9800, 10_000), single).value == pytest.approx(0.252, abs=5e-4)
    left, right = line.expected(np.array([0.9186, 0.91861]))
    assert left == pytest.approx(expit(0.6894 * logit(0.9186) - 5.14), abs=1e-6)
    assert right == pytest.approx(expit(2.956 * logit(0.91861) - 10.2774), abs=1e-6)


def test_the_interval_at_a_bend_holds_both_pieces():
    """Where the accuracy on the reference may lie on either side of the split, so may what is expected."""
    line = BASELINES["imagenet-a"]
    rho = effective_robustness((50_000_000, 100_000_000), (92, 100), line)
    low, high = Estimate.of_counts((92, 100)).low, Estimate.of_counts((92, 100)).high
    assert low < line.split < high
    assert rho.low == pytest.approx(0.5 - float(line.expected(high)), abs=1e-3)
    assert rho.high == pytest.approx(0.5 - float(line.expected(low)), abs=1e-3)


# Per cent on ImageNet, V2, Sketch, R, ObjectNet and A of standard models in imagenet-testbed.
TESTBED = {
    "resnet18": (69.76, 57.31, 20.23, 33.06, 26.74, 1.15),
    "resnet101": (77.37, 65.45, 26.97, 39.31, 38.38, 4.72),
    "nasnetalarge": (82.51, 72.29, 32.87, 45.2, 47.09, 23.21),
}


def test_the_average_of_lines_is_near_the_average_of_models():
    """The average of five shifts of models that were trained on ImageNet alone is within 1.5 points of the line."""
    names = ("imagenet-v2", "imagenet-sketch", "imagenet-r", "objectnet", "imagenet-a")
    line = AverageBaseline(tuple(IMAGENET_BASELINES[name] for name in names))
    for x, *shifts in TESTBED.values():
        assert float(line.expected(x / 100)) == pytest.approx(np.mean(shifts) / 100, abs=0.015)
    assert line.bends == (0.7613,)
    assert line.fitted == (0.5652, 0.8473)


def test_lines_over_all_of_imagenet_are_those_of_the_shifts_where_these_have_all_classes():
    """ImageNet-V2 and Sketch have ImageNet's classes; the others' lines are over ImageNet here."""
    for name in ("imagenet-v2", "imagenet-sketch"):
        assert IMAGENET_BASELINES[name] is BASELINES[name]
    assert IMAGENET_BASELINES.keys() == BASELINES.keys()
    assert {line.reference for line in IMAGENET_BASELINES.values()} == {"ImageNet"}


def test_the_interval_is_made_of_both_accuracies():
    """The interval is the shift's if the reference is exact, and grows with the reference's own."""
    line = BASELINES["imagenet-v2"]
    shift = Estimate.of_counts((700, 1000))
    sure = effective_robustness((700, 1000), (800_000_000, 1_000_000_000), line)
    assert sure.high - sure.value == pytest.approx(shift.high - shift.value, rel=1e-4)
    assert sure.value - sure.low == pytest.approx(shift.value - shift.low, rel=1e-4)
    unsure = effective_robustness((700, 1000), (800, 1000), line)
    assert unsure.low < sure.low < sure.high < unsure.high


def test_the_interval_holds_the_truth():
    """At least 94 % of intervals contain the true value, with 300 images per data set."""
    rng = np.random.default_rng(3)
    line, truth = Baseline(0.9, -0.5), 0.7 - expit(0.9 * logit(0.85) - 0.5)
    held = 0
    for shift, reference in zip(rng.binomial(300, 0.7, 1000), rng.binomial(300, 0.85, 1000), strict=True):
        rho = effective_robustness((int(shift), 300), (int(reference), 300), line)
        held += rho.low <= truth <= rho.high
    assert 940 <= held <= 998


@pytest.mark.parametrize("reference", [(0, 50), (50, 50)])
def test_a_reference_at_the_edge_has_a_rho(reference):
    """The value is finite and inside its interval, also on a falling line."""
    for line in (Baseline(0.9, -0.5), Baseline(0.9, -0.5, axis="probit"), Baseline(-0.9, 0.5)):
        rho = effective_robustness((0, 50), reference, line)
        assert -1 <= rho.low <= rho.value <= rho.high <= 1

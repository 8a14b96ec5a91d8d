"""Calibration against scikit-learn and plain loops, and against figures of torchmetrics and netcal."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from mergekit_wise.analysis import CALIBRATION, NUMBERS, Answers, Candidate, Measurements, Point, calibrations, choose
from mergekit_wise.analysis.calibration import UNKNOWN, averaged, calibration, pooled
from mergekit_wise.analysis.paired import evidence
from mergekit_wise.analysis.temperature import best_temperature
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import ResultsError


def softmax(logits):
    """Probabilities in float64."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(images=3000, classes=7, seed=0, scale=2.0):
    """Logits [N, K] that are somewhat right, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    return scale * (rng.standard_normal((images, classes)) + 1.2 * np.eye(classes)[labels]), labels


def answers(logits, labels, metric=None):
    """The answers of one model with these logits."""
    p, rows = softmax(logits), np.arange(len(labels))
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)
    brier = ((p - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore"):
        numbers = np.stack([p.max(axis=1), -np.log(p[rows, labels]), brier, entropy])
    return Answers(
        dataset="d",
        title="D",
        role="shift",
        metric=metric or Metric(),
        outputs=logits.shape[1],
        labels=labels,
        images=rows,
        same_images="",
        classes=logits.argmax(axis=1)[None].astype(np.int32),
        numbers=numbers[None].astype(np.float32),
    )


def ece_by_loop(right, confidence):
    """Guo et al.'s equations 3, plainly."""
    total = 0.0
    for b in range(15):
        inside = [i for i, c in enumerate(confidence) if b / 15 < c <= (b + 1) / 15]
        if inside:
            gap = np.mean([right[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(right) * abs(gap)
    return total


@pytest.mark.parametrize(("images", "classes", "scale"), [(3000, 7, 2.0), (400, 2, 0.5), (45, 100, 4.0), (1, 3, 1.0)])
def test_the_numbers_are_those_of_scikit_learn_and_of_plain_loops(images, classes, scale):
    """NLL, Brier score and AUROC agree with scikit-learn, both calibration errors and coverage with loops."""
    logits, labels = drawn(images, classes, scale=scale)
    found = calibrations(answers(logits, labels))[0]
    p, right = softmax(logits), logits.argmax(axis=1) == labels
    confidence = p.max(axis=1)
    every = list(range(classes))
    assert found.values["nll"] == pytest.approx(log_loss(labels, p, labels=every), abs=1e-6)
    wanted = (
        brier_score_loss(labels, p, labels=every, scale_by_half=False)
        if classes > 2
        else np.mean(((p - np.eye(2)[labels]) ** 2).sum(axis=1))
    )
    assert found.values["brier"] == pytest.approx(wanted, abs=1e-6)
    if 0 < right.sum() < images:
        assert found.values["auroc"] == pytest.approx(roc_auc_score(right, confidence.astype(np.float32)), abs=1e-9)
    else:
        assert "auroc" not in found.values
    assert found.values["ece"] == pytest.approx(ece_by_loop(right, confidence.astype(np.float32)), abs=1e-6)
    order = np.argsort(confidence)
    parts = [order[[i for i in range(images) if i * 15 // images == b]] for b in range(15)]
    gaps = [len(part) * abs(right[part].mean() - confidence[part].mean()) for part in parts if len(part)]
    assert found.values["adaptive-ece"] == pytest.approx(sum(gaps) / images, abs=1e-6)
    kept = order[::-1][: math.ceil(0.8 * images)]
    assert found.values["accuracy-at-80"] == pytest.approx(right[kept].mean())
    assert found.values.keys() <= set(CALIBRATION)
    assert sum(n for n, _, _ in found.bins) == images
    assert sum(k for _, k, _ in found.bins) == right.sum()
    assert sum(c for _, _, c in found.bins) == pytest.approx(confidence.sum(), rel=1e-6)


def test_confidence_one_and_the_edges_are_in_the_lower_bin():
    """Bins are open below and closed above, so a confidence of 1 is in the last one, with those just below it."""
    right = np.array([True, False, True])
    found = calibration(right, np.array([1.0, 0.99, 1 / 15]), None, None)
    assert [images for images, _, _ in found.bins] == [1, *[0] * 13, 2]


def test_ties_do_not_depend_on_the_order_of_images():
    """Equal confidences count the same, whatever the order of the images, in every number."""
    rng = np.random.default_rng(0)
    right, confidence = rng.random(200) < 0.6, rng.integers(2, 6, 200) / 5
    order = rng.permutation(200)
    one, other = calibration(right, confidence), calibration(right[order], confidence[order])
    assert one.values == pytest.approx(other.values)
    same = calibration(right, np.full(200, 0.5))
    assert same.values["auroc"] == 0.5
    assert same.values["accuracy-at-80"] == pytest.approx(right.mean())
    assert same.values["adaptive-ece"] == same.values["ece"] == pytest.approx(abs(right.mean() - 0.5))


def test_what_is_undefined_is_left_out():
    """Several right classes leave no NLL; all right or none leaves no AUROC; NaN leaves nothing; no image neither."""
    logits, labels = drawn(30, 4)
    several = Metric(accepted=tuple(frozenset({int(label), 0}) for label in labels))
    found = calibrations(answers(logits, labels, several))[0]
    assert found.values.keys() == {"ece", "adaptive-ece", "auroc", "accuracy-at-80"}
    accepted = (logits.argmax(axis=1) == labels) | (logits.argmax(axis=1) == 0)
    assert sum(k for _, k, _ in found.bins) == accepted.sum()
    for right in (labels == labels, labels != labels):
        assert "auroc" not in calibration(right, np.full(30, 0.7)).values
    broken = answers(logits, labels)
    broken.numbers[0, :, 3] = np.nan
    assert calibrations(broken) == (UNKNOWN,)
    assert calibration(np.zeros(0, bool), np.zeros(0)) == UNKNOWN
    impossible = calibration(np.array([True, False]), np.array([0.5, 0.6]), np.array([0.1, np.inf]), np.ones(2))
    assert "nll" not in impossible.values


def test_every_model_has_its_own_numbers():
    """Several models' answers give the numbers of each by itself."""
    logits, labels = drawn(100, 3)
    one, other = answers(logits, labels), answers(3 * logits, labels)
    both = Answers(
        **{name: getattr(one, name) for name in ("dataset", "title", "role", "metric", "outputs", "labels", "images")},
        same_images="",
        classes=np.concatenate([one.classes, other.classes]),
        numbers=np.concatenate([one.numbers, other.numbers]),
    )
    assert both.numbers.shape == (2, len(NUMBERS), 100)
    assert calibrations(both) == (*calibrations(one), *calibrations(other))


def test_bins_add_up_and_averages_need_every_data_set():
    """Pooled bins are sums; an average over data sets is undefined where a number is on one of them."""
    first, second = ((2, 1, 1.5), (0, 0, 0.0)), ((1, 1, 0.5), (3, 2, 2.5))
    assert pooled([first, second]) == ((3, 2, 2.0), (3, 2, 2.5))
    assert pooled([first, ()]) == pooled([]) == ()
    assert averaged([{"ece": 0.1}, {"ece": 0.3}], "ece") == pytest.approx(0.2)
    assert averaged([{"ece": 0.1}, {}], "ece") is averaged([], "ece") is None


def test_the_figures_of_torchmetrics_and_netcal():
    """torchmetrics 1.9.0 (float32) and netcal 1.4.0 gave these errors and this 1 / T for the same logits."""
    logits, labels = drawn(seed=1, scale=1.2)
    found = calibrations(answers(logits, labels))[0].values
    assert found["ece"] == pytest.approx(0.02338564023375511, abs=1e-7)
    assert found["ece"] == pytest.approx(0.023385621870620918, abs=1e-8)
    assert found["adaptive-ece"] == pytest.approx(0.030099231074286886, abs=1e-8)
    assert 1 / best_temperature(logits.astype(np.float32), labels) == pytest.approx(0.97012566, abs=1e-6)


def two_sets(scales=(0.5, 1.0, 2.0), **drawing):
    """A reference and a shift, answered by mixtures that differ in confidence alone."""
    found = []
    for seed, role in enumerate(("reference", "shift")):
        logits, labels = drawn(seed=seed, scale=1.2, **drawing)
        each = [answers(scale * logits, labels) for scale in scales]
        numbers, classes = (np.concatenate([getattr(one, name) for one in each]) for name in ("numbers", "classes"))
        found.append(replace(each[0], dataset=role, title=role, role=role, numbers=numbers, classes=classes))
    return found


@pytest.mark.parametrize("error", ["nll", "ece"])
def test_evidence_on_calibration_is_its_negative_and_spreads_as_the_images_do(error):
    """The values are the numbers with a minus sign; the NLL's standard error is that of a mean."""
    sets = two_sets()
    found = evidence(sets, {"reference": "reference", "shift": "shift"}, error=error)
    for column, each in enumerate(sets):
        assert found.values[column] == pytest.approx([-one.values[error] for one in calibrations(each)], rel=1e-6)
    assert found.values[2] == pytest.approx(found.values[:2].mean(axis=0))
    if error == "nll":
        differences = sets[0].number("nll")[0] - sets[0].number("nll")[2]
        spread = differences.std(ddof=1) / np.sqrt(len(differences))
        assert found.contrasts(0, 2).errors[0] == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("prefer", ["nll", "ece"])
def test_the_best_calibrated_mixture_is_chosen(prefer):
    """Of mixtures that differ in confidence alone, the one whose error is lowest, in the reason with its unit."""
    sets = two_sets(scales=(1.0, 3.0, 5.0))
    choice = choose(measurements(sets), prefer=prefer)
    assert choice.recommendation.point == Point.of_alpha(0.0)
    assert f"lowest {prefer.upper()} (mean of the reference and the shift)" in choice.recommendation.reason
    value = np.mean([calibrations(each)[0].values[prefer] for each in sets])
    shown = f"{value:.3f} nats" if prefer == "nll" else f"{100 * value:.1f} %"
    assert shown in choice.recommendation.reason
    assert choice.cross_fit is not None
    assert choice.cross_fit.sentence.startswith(shown)


def test_what_calibration_cannot_decide_is_refused():
    """Several right classes leave no NLL, and without answers nothing is known: both are errors that say what helps."""
    sets = two_sets(images=60)
    accepted = tuple(frozenset({int(label)}) for label in sets[1].labels)
    several = [sets[0], replace(sets[1], metric=Metric(accepted=accepted))]
    with pytest.raises(ResultsError, match="undefined on shift.*--prefer ece"):
        choose(measurements(several), prefer="nll")
    assert choose(measurements(several), prefer="ece").paired
    with pytest.raises(ResultsError, match="answers for each image, which are not known. --redo measures them"):
        choose(Measurements.of(measurements(sets).candidates, {}), prefer="ece", remedy="--redo measures them")
    with pytest.raises(ResultsError, match="one alone was measured"):
        choose(Measurements.of(measurements(sets).candidates[:1], {}), prefer="ece")


def measurements(sets):
    """The measurements of three mixtures."""
    rights = [each.right.sum(axis=1) for each in sets]
    names = tuple(each.dataset for each in sets)
    candidates = [
        Candidate(
            Point.of_alpha(alpha),
            (int(rights[0][row]), len(sets[0].labels)),
            ((int(rights[1][row]), len(sets[1].labels)),),
            names,
        )
        for row, alpha in enumerate((0.0, 0.5, 1.0))
    ]
    return Measurements.of(candidates, {each.dataset: each for each in sets})

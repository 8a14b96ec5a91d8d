"""Linear mode connectivity: observations 1 and 2 of the paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.analysis import Answers, Estimate
from mergekit_wise.analysis.connectivity import connectivity as connectivity_of
from mergekit_wise.analysis.paired import evidence
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import ResultsError


def connectivity(counts, answers=None):
    """Connectivity of mixtures by alpha, correct and total."""
    points = [(a, Estimate.of_counts((c, t)) if t else Estimate(0.0, 0.0, 0.0), t) for a, c, t in counts]
    return connectivity_of(points, answers)


def test_an_arch_holds_both():
    """Both observations hold significantly for a curve above the line and above both models."""
    found = connectivity([(0.0, 600, 1000), (0.25, 780, 1000), (0.5, 850, 1000), (1.0, 700, 1000)])
    assert found.first.holds
    assert found.first.alpha == 0.25
    assert found.first.margin.value == pytest.approx(0.78 - (0.75 * 0.6 + 0.25 * 0.7))
    assert found.first.significant
    assert found.second.holds
    assert (found.second.alpha, found.second.margin.value) == (0.5, pytest.approx(0.15))
    assert found.second.significant


def test_a_valley_holds_neither():
    """Both observations fail for a curve below the line, with negative margins."""
    found = connectivity([(1.0, 900, 1000), (0.9, 850, 1000), (0.5, 300, 1000), (0.0, 700, 1000)])
    assert not found.first.holds
    assert (found.first.alpha, found.first.margin.value) == (0.5, pytest.approx(-0.5))
    assert found.first.significant
    assert not found.second.holds
    assert (found.second.alpha, found.second.margin.value) == (0.9, pytest.approx(-0.05))
    assert found.second.significant


def test_a_slope_may_hold_the_first_alone():
    """The second observation fails if no merged model reaches the better of the two models."""
    found = connectivity([(0.0, 60, 100), (0.5, 71, 100), (1.0, 80, 100)])
    assert (found.first.holds, found.first.significant) == (True, False)
    assert (found.second.holds, found.second.significant) == (False, False)


@given(
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.lists(st.integers(1, 999), min_size=1, max_size=9, unique=True),
    st.data(),
)
def test_observations_are_those_of_exact_arithmetic(zeroshot, finetuned, thousandths, data):
    """The decisions agree with whole-number arithmetic, even a thousandth of an image from the line."""
    lines = {k: (1000 - k) * zeroshot + k * finetuned for k in thousandths}
    counts = {
        k: data.draw(st.integers(max(0, line // 1000 - 1), min(1000, line // 1000 + 2))) for k, line in lines.items()
    }
    points = [(0.0, zeroshot, 1000), *((k / 1000, counts[k], 1000) for k in thousandths), (1.0, finetuned, 1000)]
    found = connectivity(points)
    assert found.first.holds == all(1000 * counts[k] >= lines[k] for k in thousandths)
    assert found.second.holds == (max(counts.values()) >= max(zeroshot, finetuned))
    assert found.first.margin.low <= found.first.margin.value <= found.first.margin.high


@pytest.mark.parametrize("counts", [(0, 1000), (1000, 0), (130, 730), (990, 10)])
def test_a_straight_line_holds_the_first(counts):
    """A straight line holds the first observation, and one image fewer at any alpha fails it."""
    points = [(k / 100, ((100 - k) * counts[0] + k * counts[1]) // 10, 10_000) for k in range(101)]
    assert connectivity(points).first.holds
    for k in (1, 37, 99):
        below = [(alpha, correct - (alpha == k / 100), total) for alpha, correct, total in points]
        found = connectivity(below).first
        assert (found.holds, found.alpha) == (False, k / 100)


def test_alphas_outside_0_and_1_are_ignored():
    """Extrapolated alphas do not change the result."""
    way = [(0.0, 60, 100), (0.5, 71, 100), (1.0, 80, 100)]
    assert connectivity([(-0.5, 0, 100), *way, (1.5, 99, 100)]) == connectivity(way)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0.5, 1, 2), (1.0, 1, 2)], r"alpha 0 \(zero-shot\) was not measured.*--alphas"),
        ([(0.0, 1, 2), (0.5, 1, 2)], r"alpha 1 \(fine-tuned\) was not measured"),
        ([], r"alpha 0 \(zero-shot\) and 1 \(fine-tuned\) was not measured"),
        ([(0.0, 1, 2), (1.0, 1, 2)], "needs an alpha between 0 and 1"),
        ([(0.0, 1, 2), (0.5, 1, 2), (0.5, 1, 2), (1.0, 1, 2)], "alpha 0.5 occurs twice"),
        ([(0.0, 1, 2), (0.5, 1, 3), (1.0, 1, 2)], "found counts of 2, 3 images"),
        ([(0.0, 0, 0), (0.5, 0, 0), (1.0, 0, 0)], "found counts of 0 images"),
    ],
)
def test_incomplete_or_unequal_measurements_are_refused(points, message):
    """Missing alphas, repeated alphas and different totals are errors that name the cause."""
    with pytest.raises(ResultsError, match=message):
        connectivity(points)


def paired(rows, metric=None, labels=None, outputs=2):
    """Evidence on one data set: a row of right answers for each mixture."""
    labels = np.zeros(len(rows[0]), np.int64) if labels is None else labels
    classes = np.where(rows, labels, (labels + 1) % outputs).astype(np.int32)
    numbers = np.zeros((len(rows), 4, len(labels)), np.float32)
    images = np.arange(len(labels))
    answers = Answers("d", "D", "shift", metric or Metric(), outputs, labels, images, "", classes, numbers)
    return evidence([answers], {"d": "D"})


def test_image_by_image_a_small_gain_is_significant():
    """A mixture that is right on 30 more of 1000 images than either model, which it contains, is surely better."""
    rows = np.zeros((3, 1000), bool)
    rows[:, :700], rows[0, 700:720], rows[2, 720:740], rows[1, 700:750] = True, True, True, True
    counts = [(0.0, 720, 1000), (0.5, 750, 1000), (1.0, 720, 1000)]
    alone, found = connectivity(counts), connectivity(counts, paired(rows))
    for one, other in ((alone.first, found.first), (alone.second, found.second)):
        assert (one.holds, one.alpha) == (other.holds, other.alpha)
        assert one.margin.value == pytest.approx(other.margin.value)
        assert not one.significant
        assert other.significant


def test_a_data_set_is_connected_in_its_own_metric():
    """Mean per class, not the share of images, decides: here a rare class is lost between the two models."""
    labels = np.array([0] * 90 + [1] * 10)
    rows = np.array([labels == 1, np.arange(100) < 89, labels == 1])
    metric = Metric("mean-per-class")
    values = [np.mean([row[labels == label].mean() for label in (0, 1)]) for row in rows]
    points = [(a, Estimate(v, v, v), 100) for a, v in zip((0.0, 0.5, 1.0), values, strict=True)]
    found = connectivity_of(points, paired(rows, metric, labels))
    assert not found.second.holds
    assert found.second.margin.value == pytest.approx(values[1] - 0.5)
    assert connectivity([(0.0, 10, 100), (0.5, 89, 100), (1.0, 10, 100)]).second.holds


@pytest.mark.slow
@pytest.mark.simulation
def test_simultaneous_margins_rarely_exclude_the_truth():
    """On a straight line with one point left of 11, the first margin excludes zero in at most 5 % of 300 samples."""
    rng, alphas = np.random.default_rng(0), np.linspace(0, 1, 11)
    wrong = 0
    for _ in range(300):
        hard = rng.random(200)
        rows = np.array([(hard < 0.5 + 0.2 * alpha) ^ (rng.random(200) < 0.1) for alpha in alphas])
        counts = [(float(a), int(row.sum()), 200) for a, row in zip(alphas, rows, strict=True)]
        wrong += connectivity(counts, paired(rows)).first.significant
    assert wrong <= 15

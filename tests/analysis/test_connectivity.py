"""Linear mode connectivity: observations 1 and 2 of the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.analysis import connectivity
from mergekit_wise.errors import ResultsError


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

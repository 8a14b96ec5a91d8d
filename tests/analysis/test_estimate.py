"""Numbers with intervals and sums of them, against SciPy and simulations."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from mergekit_wise.analysis.estimate import UNKNOWN, Estimate, clopper_pearson, combined


def test_a_share_has_scipys_interval():
    """An estimate of counts has SciPy's Clopper-Pearson interval."""
    wanted = binomtest(70, 100).proportion_ci(0.95, method="exact")
    found = Estimate.of_counts((70, 100))
    assert (found.value, found.low, found.high) == pytest.approx((0.7, wanted.low, wanted.high), abs=1e-12)


def test_intervals_that_touch_do_not_differ():
    """Estimates differ only if their intervals have no point in common."""
    low, middle, high = Estimate(1, 0, 2), Estimate(3, 2, 4), Estimate(5, 4.1, 6)
    assert not low.differs(middle)
    assert high.above(middle)
    assert not middle.above(high)
    assert middle.differs(high)


def test_what_is_unknown_differs_from_nothing():
    """An unknown estimate differs from no other and makes every sum unknown."""
    assert not UNKNOWN.differs(Estimate(1, 0, 2))
    assert not Estimate(1, 0, 2).above(UNKNOWN)
    assert np.isnan(combined([(1, Estimate(1, 0, 2)), (1, UNKNOWN)]).high)


def test_normal_intervals_add_up_as_variances_do():
    """The standard error of 2 x - 3 y is sqrt(4 s^2 + 9 t^2)."""
    found = combined([(2, Estimate(10, 10 - 0.5, 10 + 0.5)), (-3, Estimate(1, 1 - 0.2, 1 + 0.2))])
    assert (found.value, found.high - found.value) == pytest.approx((17, (4 * 0.25 + 9 * 0.04) ** 0.5))
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_a_factor_below_zero_swaps_the_sides():
    """The upper bound of a subtracted number gives the lower bound of the difference."""
    found = combined([(-1, Estimate(0.9, 0.6, 0.95))])
    assert (found.low, found.value, found.high) == pytest.approx((-0.95, -0.9, -0.6))


@pytest.mark.parametrize(("p", "q", "images"), [(0.9, 0.5, 200), (0.99, 0.95, 400), (0.3, 0.3, 60)])
def test_the_interval_of_a_difference_holds_the_truth(p, q, images):
    """At least 94 % of 1000 simulated intervals contain the true difference."""
    rng = np.random.default_rng(7)
    held = 0
    for a, b in zip(rng.binomial(images, p, 1000), rng.binomial(2 * images, q, 1000), strict=True):
        terms = [(1, Estimate.of_counts((int(a), images))), (-1, Estimate.of_counts((int(b), 2 * images)))]
        found = combined(terms)
        held += found.low <= p - q <= found.high
    assert 940 <= held <= 998


def test_errors_on_the_same_images_add_up():
    """Distances of terms with one key are added, those of other keys and of no key are independent of them."""
    one, two, three = Estimate(0.5, 0.4, 0.7), Estimate(0.6, 0.3, 0.7), Estimate(0.2, 0.1, 0.3)
    found = combined([(0.25, one), (0.25, two), (0.5, three)], ("a", "a", ""))
    assert found.value - found.low == pytest.approx(((0.025 + 0.075) ** 2 + 0.05**2) ** 0.5)
    assert found.high - found.value == pytest.approx(((0.05 + 0.025) ** 2 + 0.05**2) ** 0.5)
    assert combined([(0.5, one), (0.5, one)], ("a", "a")) == one
    for keys in ((), ("", ""), ("a", "b")):
        independent = combined([(0.5, one), (0.5, one)], keys)
        assert independent.high - independent.value == pytest.approx(0.2 / 2**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("images", "ease"), [(60, 1.5), (100, 0.5), (1000, -0.5)])
def test_the_interval_of_an_average_over_the_same_images_holds_the_truth(shared, images, ease):
    """At least 95 % of 4000 simulated intervals do, however much the errors have in common; independent ones do not.

    An image is right if its difficulty, of which a part is the same in all eight data sets, is below the set's ease.
    """
    rng, sets, runs = np.random.default_rng(11), 8, 4000
    eases = ease + np.linspace(-0.5, 0.5, sets)
    truth = norm.cdf(eases).mean()
    own, common = rng.standard_normal((runs, sets, images)), rng.standard_normal((runs, 1, images))
    correct = (shared**0.5 * common + (1 - shared) ** 0.5 * own < eases[:, None]).sum(2)
    estimates = {int(count): Estimate.of_counts((int(count), images)) for count in np.unique(correct)}
    held = np.zeros(2)
    for counts in correct:
        terms = [(1 / sets, estimates[int(count)]) for count in counts]
        bounds = [combined(terms, keys) for keys in (("same",) * sets, ())]
        held += [each.low <= truth <= each.high for each in bounds]
    same, independent = held / runs
    assert same >= 0.95
    assert independent < 0.9 or shared == 0


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 10), (7, 10), (900, 1000), (49_999, 50_000)])
def test_intervals_are_scipys(correct, total):
    """Intervals equal those of SciPy's ``binomtest(...).proportion_ci(method="exact")``."""
    wanted = binomtest(correct, total).proportion_ci(0.95, method="exact")
    assert clopper_pearson(correct, total) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_the_bounds_are_where_the_count_becomes_unlikely():
    """At the low bound 2.5 % of draws reach the count, at the high bound 2.5 % stay at or below it."""
    low, high = clopper_pearson(37, 120)
    assert binom.sf(36, 120, low) == pytest.approx(0.025)
    assert binom.cdf(37, 120, high) == pytest.approx(0.025)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(correct, total):
    """Zero images, and counts above the total or below zero, are errors."""
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(correct, total)

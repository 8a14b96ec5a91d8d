"""Intervals against SciPy's own, and against what they promise."""

import pytest
from scipy.stats import binom, binomtest

from mergekit_wise.analysis import clopper_pearson


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 10), (7, 10), (900, 1000), (49_999, 50_000)])
def test_intervals_are_scipys(correct, total):
    """``binomtest(...).proportion_ci(method="exact")``."""
    wanted = binomtest(correct, total).proportion_ci(0.95, method="exact")
    assert clopper_pearson(correct, total) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_the_ends_are_where_the_count_becomes_unlikely():
    """At the low end 2.5 % of draws reach the count, at the high end 2.5 % stay at or below it."""
    low, high = clopper_pearson(37, 120)
    assert binom.sf(36, 120, low) == pytest.approx(0.025)
    assert binom.cdf(37, 120, high) == pytest.approx(0.025)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_is_refused(correct, total):
    """Zero images have no accuracy."""
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(correct, total)

"""The recommended alpha."""

import pytest

from mergekit_wise.analysis import Candidate, recommend


def candidate(alpha, reference, *shifts, total=1000):
    return Candidate(alpha, (reference, total), tuple((shift, total) for shift in shifts))


def test_averages_count_each_shift_the_same():
    """A shift of ten images weighs as much as one of a thousand, as in the paper's tables."""
    mixed = Candidate(0.5, (90, 100), ((5, 10), (1000, 1000)))
    assert mixed.shift_accuracy == pytest.approx(0.75)
    assert mixed.average == pytest.approx((0.9 + 0.75) / 2)
    assert mixed.pooled_shifts == (1005, 1010)


def test_half_is_recommended_where_nothing_separates_the_candidates():
    """0.4 is better by less than the intervals."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.4, 903, 702), candidate(0.5, 900, 700)])
    assert found.alpha == 0.5
    assert "nothing separates it from 0.4" in found.reason


@pytest.mark.parametrize(("reference", "shift"), [(900, 800), (980, 700)])
def test_the_best_is_recommended_where_it_is_better_beyond_the_intervals(reference, shift):
    """On the shifts, or on the reference."""
    found = recommend([candidate(0.3, reference, shift), candidate(0.5, 900, 700), candidate(1.0, 900, 100)])
    assert found.alpha == 0.3


def test_half_may_be_the_best():
    """Then that is the reason."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.5, 900, 700), candidate(1.0, 950, 400)])
    assert found.alpha == 0.5
    assert "best mean" in found.reason


def test_without_half_the_best_is_taken():
    """And it is said that 0.5 was not tried."""
    found = recommend([candidate(0.0, 700, 600), candidate(1.0, 950, 400)])
    assert found.alpha == 1.0
    assert "0.5 was not among" in found.reason


def test_of_equal_ones_the_nearest_to_half_is_taken():
    """Ties do not depend on the order."""
    both = [candidate(0.0, 700, 600), candidate(0.4, 700, 600), candidate(1.0, 700, 600)]
    assert recommend(both).alpha == recommend(both[::-1]).alpha == 0.4

"""Axes hold what they are made for, and have readable ticks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from mergekit_wise.report import scale
from mergekit_wise.report.scale import alpha_scale, linear_scale, logit_scale

shares = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(shares)
@pytest.mark.parametrize("make", [linear_scale, logit_scale])
def test_an_axis_holds_what_it_was_made_for(make, given):
    """Every share is on the axis, which has one or more ticks in per cent that are not too close to each other."""
    axis = make(given)
    places = [axis.place(share) for share in given]
    assert all(0 <= place <= 1 for place in places)
    order = np.argsort(given, kind="stable")
    assert all(np.diff(np.array(places)[order]) >= 0)
    ticks = [axis.place(tick) for tick in axis.ticks]
    assert 1 <= len(ticks) <= 13
    assert all(np.diff(ticks) > 0.05)
    assert [float(label) / 100 for label in axis.labels] == pytest.approx(axis.ticks)


@given(st.floats(0.001, 0.999))
def test_logits_are_scipys(share):
    """Logits and their inverses agree with SciPy's."""
    assert scale.logit(share) == pytest.approx(logit(share))
    assert scale.expit(logit(share)) == pytest.approx(expit(logit(share)))


def test_logit_axes_are_straight_in_logits():
    """The middle of an axis is the mean of the logits of its bounds."""
    axis = logit_scale([0.6, 0.95])
    middle = expit((logit(axis.low) + logit(axis.high)) / 2)
    assert axis.place(float(middle)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("alphas", "bounds", "labels"),
    [([0.5], (0, 1), ("0", "0.25", "0.5", "0.75", "1")), ([0, 1.5], (0, 1.5), None), ([-1, 1], (-1, 1), None)],
)
def test_alpha_goes_from_0_to_1_or_further(alphas, bounds, labels):
    """The axis of alpha grows to hold extrapolated alphas."""
    axis = alpha_scale(alphas)
    assert (axis.low, axis.high) == bounds
    assert labels is None or axis.labels == labels
    assert 3 <= len(axis.ticks) <= 8

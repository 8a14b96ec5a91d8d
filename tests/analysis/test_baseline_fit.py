"""Lines through models, against SciPy's."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import linregress, norm

from mergekit_wise.analysis import Point, fit_baseline
from mergekit_wise.errors import ResultsError

AXES = [("logit", logit, expit), ("probit", norm.ppf, norm.cdf)]


def models(number, back=expit, a=0.92, b=-0.5, noise=0.05, seed=0):
    """Models around a line."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 2.0, number)
    y = a * x + b + rng.normal(0, noise, number)
    return [Point(f"model {i}", float(back(u)), float(back(v))) for i, (u, v) in enumerate(zip(x, y, strict=True))]


@pytest.mark.parametrize(("axis", "forth", "back"), AXES)
def test_the_line_is_scipys(axis, forth, back):
    """Slope, intercept and R^2."""
    points = models(40, back)
    wanted = linregress(forth([p.reference for p in points]), forth([p.shift for p in points]))
    found = fit_baseline(points, axis, bootstrap=0)
    assert (found.a, found.b) == pytest.approx((wanted.slope, wanted.intercept))
    assert found.r2 == pytest.approx(wanted.rvalue**2)
    assert (found.models, found.axis, found.a_interval, found.draws) == (40, axis, None, ())


def test_bootstrap_intervals_are_those_of_theory_where_theory_holds():
    """Normal errors of one size: 1.96 standard errors of the slope and of the intercept, within a fifth."""
    points = models(200)
    theory = linregress(logit([p.reference for p in points]), logit([p.shift for p in points]))
    found = fit_baseline(points, bootstrap=2000)
    for value, (low, high), error in (
        (found.a, found.a_interval, theory.stderr),
        (found.b, found.b_interval, theory.intercept_stderr),
    ):
        assert low < value < high
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_bootstrap_intervals_hold_the_line():
    """In about 95 % of experiments."""
    held = [fit_baseline(models(60, seed=seed), bootstrap=300).a_interval for seed in range(200)]
    assert 174 <= sum(low <= 0.92 <= high for low, high in held) <= 199


def test_the_same_seed_gives_the_same_intervals():
    """Another one does not."""
    points = models(30)
    assert fit_baseline(points, seed=1) == fit_baseline(points, seed=1)
    assert fit_baseline(points, seed=1).a_interval != fit_baseline(points, seed=2).a_interval


def test_the_band_lies_around_the_line_and_widens_away_from_the_models():
    """In one call for a whole curve."""
    line = fit_baseline(models(40))
    x = expit(np.array([-4.0, 1.1, 6.0]))
    low, high = line.band(x)
    assert (low < line.expected(x)).all()
    assert (line.expected(x) < high).all()
    widths = logit(high) - logit(low)
    assert widths[1] < widths[0]
    assert widths[1] < widths[2]


def test_points_on_a_line_are_found_exactly():
    """And nothing is left to explain."""
    points = [Point(str(x), float(expit(x)), float(expit(1.5 * x - 1))) for x in (0.1, 0.5, 1.2, 2.0)]
    found = fit_baseline(points, bootstrap=100)
    assert (found.a, found.b, found.r2) == pytest.approx((1.5, -1, 1))
    assert found.a_interval == pytest.approx((1.5, 1.5))
    assert len(found.draws) > 90


def test_an_accuracy_at_the_edge_is_half_an_image_inside():
    """Of as many images as are told."""
    points = [Point("none", 0.0, 0.0), Point("half", 0.5, 0.5), Point("all", 1.0, 1.0)]
    found = fit_baseline(points, images=100)
    assert (found.a, found.b, found.r2) == pytest.approx((1, 0, 1))
    inside = [Point("none", 0.005, 0.005), *points[1:]]
    assert fit_baseline(inside, images=100) == found


def test_shifts_that_are_all_the_same_leave_nothing_to_explain():
    """No R^2, rather than 0 / 0."""
    found = fit_baseline([Point(str(x), x, 0.5) for x in (0.5, 0.6, 0.7)])
    assert (found.a, found.r2) == (pytest.approx(0, abs=1e-12), None)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "at least 3 models.*found 0"),
        ([Point("a", 0.5, 0.4), Point("b", 0.6, 0.5)], "at least 3 models.*found 2"),
        ([Point(n, 0.5, 0.4) for n in "abc"], "not all of the same accuracy"),
        ([Point(str(x), x, 0.4) for x in (0, 1e-9, 1e-8)], "not all of the same accuracy"),
        ([*models(3), Point("bad", 55.0, 0.5)], "from 0 to 1; bad has others"),
        ([*models(3), Point("bad", 0.5, float("nan"))], "from 0 to 1; bad has others"),
    ],
)
def test_what_has_no_line_is_refused(points, said):
    """By name."""
    with pytest.raises(ResultsError, match=said):
        fit_baseline(points, shift="imagenet-v2")

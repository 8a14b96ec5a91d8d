"""Baselines through a user's own models, against SciPy, and the tables they are read from."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import linregress, norm

from mergekit_wise.analysis import Accuracies, Baseline, fit_baseline, fit_baselines, parse_points
from mergekit_wise.analysis.baseline import IMAGES
from mergekit_wise.errors import ResultsError, WiseError

AXES = [("logit", logit, expit), ("probit", norm.ppf, norm.cdf)]


def models(number, back=expit, a=0.92, b=-0.5, noise=0.05, seed=0):
    """Models around a line."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 2.0, number)
    y = a * x + b + rng.normal(0, noise, number)
    return [Accuracies(f"model {i}", float(back(u)), float(back(v))) for i, (u, v) in enumerate(zip(x, y, strict=True))]


@pytest.mark.parametrize(("axis", "forth", "back"), AXES)
def test_the_line_is_scipys(axis, forth, back):
    """Slope and intercept agree with SciPy's linear regression on the axis."""
    points = models(40, back)
    wanted = linregress(forth([p.reference for p in points]), forth([p.shift for p in points]))
    found = fit_baseline(points, axis)
    assert (found.a, found.b) == pytest.approx((wanted.slope, wanted.intercept))
    assert found.axis == axis


def test_points_on_a_line_are_found_exactly():
    """The fit returns the slope and the intercept of the line that the points are on."""
    points = [Accuracies(str(x), float(expit(x)), float(expit(1.5 * x - 1))) for x in (0.1, 0.5, 1.2, 2.0)]
    found = fit_baseline(points)
    assert (found.a, found.b) == pytest.approx((1.5, -1))


def test_an_accuracy_of_zero_or_one_is_half_an_image_inside():
    """Their logits are infinite, so the fit moves them by half an image of 10,000."""
    points = [Accuracies("none", 0.0, 0.0), Accuracies("half", 0.5, 0.5), Accuracies("all", 1.0, 1.0)]
    found = fit_baseline(points)
    assert (found.a, found.b) == pytest.approx((1, 0))
    inside = fit_baseline([Accuracies("none", 0.5 / IMAGES, 0.5 / IMAGES), *points[1:]])
    assert (inside.a, inside.b) == (found.a, found.b)


def test_a_line_knows_the_range_of_its_models():
    """Beyond the worst and the best of them on the reference, it is an extrapolation."""
    found = fit_baseline([Accuracies(str(x), x, 0.6) for x in (0.7, 0.5, 0.6)])
    assert found.fitted == (0.5, 0.7)


def test_shifts_that_are_all_the_same_give_a_flat_line():
    """The slope is zero, and the intercept is the logit of the common accuracy."""
    found = fit_baseline([Accuracies(str(x), x, 0.6) for x in (0.5, 0.6, 0.7)])
    assert (found.a, found.b) == pytest.approx((0, logit(0.6)), abs=1e-12)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least 3 models.*found 0"),
        ([Accuracies("a", 0.5, 0.4), Accuracies("b", 0.6, 0.5)], "at least 3 models.*found 2"),
        ([Accuracies(n, 0.5, 0.4) for n in "abc"], "same accuracy.*found 3"),
        ([Accuracies(str(x), x, 0.4) for x in (0, 1e-9, 1e-8)], "same accuracy.*found 3"),
        ([*models(3), Accuracies("bad", 55.0, 0.5)], "from 0 to 1; bad has others"),
        ([*models(3), Accuracies("bad", 0.5, float("nan"))], "from 0 to 1; bad has others"),
    ],
)
def test_what_has_no_line_is_refused(points, message):
    """Too few models, equal accuracies and numbers outside [0, 1] are errors that name the cause."""
    with pytest.raises(ResultsError, match=message):
        fit_baseline(points, shift="imagenet-v2")


TABLE = """\
name,imagenet,imagenet-v2,imagenet-r,reference:imagenet-r
ResNet-50,76.13,63.20,36.2,92.1
"Net, large",80,,40,93
Small,60.5,48,,
"""


def test_a_table_gives_points_for_each_shift():
    """Percentages become shares; models with an empty cell, and shifts with a reference of their own, are left out."""
    found = parse_points(TABLE, "mine.csv")
    assert found == {
        "imagenet-v2": (Accuracies("ResNet-50", 0.7613, 0.632), Accuracies("Small", 0.605, 0.48)),
    }


def test_shares_stay_as_they_are():
    """A table without a number above 1 holds shares; blank lines, spaces, CR and a byte-order mark are ignored."""
    text = "\ufeffname, reference, r\r\n\r\na, 0.9, 1\r\n b ,0.8,0.00\r\n,,\r\n"
    assert parse_points(text, "x") == {"r": (Accuracies("a", 0.9, 1.0), Accuracies("b", 0.8, 0.0))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no models"),
        ("name,reference,r\n", "found no models"),
        ("name,reference\na,1\n", "expected the columns name, reference"),
        ("name,reference,r,r\na,1,1,1\n", "found name, reference, r, r"),
        ("name,reference,\na,1,1\n", r"found name, reference, \(empty\)"),
        ("name,reference,r,reference:s\na,1,1,1\n", "found name, reference, r, reference:s"),
        ("name,reference,r\na,0.5\n", "line 2 has 2 cells, the first being 'a'; expected a name and 2 accuracies"),
        ("name,reference,r\na,0.5,0.5,0.5\n", "line 2 has 4 cells"),
        ("name,reference,r\n,0.5,0.5\n", "the first being 'empty'"),
        ("name,reference,r\na,0.5,0.5\nb,0.5,high\n", "line 3, column r: expected an accuracy.*found 'high'"),
        ("name,reference,r\na,0.5,nan\n", "line 2, column r: .*found 'nan'"),
        ("name,reference,r\na,0.5,-0.1\n", "found '-0.1'"),
        ("name,reference,r\na,101,0.1\n", "found '101'"),
        ("name,reference,r\na,0.5,0.4\na,0.6,0.5\n", "the model a has two lines"),
        ("name,reference,r\na,0.75,0.4\nb,76,40\n", "a has 0.75 in column reference, but other numbers are above 1"),
        ('name,reference,r\n"a,0.5,0.5\n', "line 2"),
    ],
)
def test_what_is_not_such_a_table_is_reported_by_line_and_column(text, message):
    """Every error names the file, and the line and column where they are known."""
    with pytest.raises(ResultsError, match=f"^mine.csv: .*{message}"):
        parse_points(text, "mine.csv")


def test_any_text_is_a_table_or_an_error_of_ours():
    """Arbitrary text gives points in [0, 1] or a WiseError, never another exception; some of it is a table."""
    characters = st.text(st.sampled_from('a0.,1"\n\r -%\0'), max_size=60)
    cells = st.lists(st.sampled_from(["0", "0.5", "1", "50", "100", "101", "-1", "", "a", '"1"', " 1 "]), max_size=9)
    sound = st.lists(st.sampled_from(["0", "0.5", "1"]), min_size=2, max_size=2)
    rows = st.lists(st.one_of(cells, sound).map(lambda row: ",".join(["m", *row])), max_size=4)
    tables = []

    @given(st.one_of(characters, rows.map(lambda lines: "\n".join(["model,ref,A", *lines]))))
    @example("model,ref,A\nm,50,1")
    def check(text):
        try:
            points = parse_points(text, "x")
        except WiseError:
            return
        assert all(0 <= value <= 1 for shift in points.values() for p in shift for value in (p.reference, p.shift))
        tables.append(points)

    check()
    assert len(tables) > 1


def test_every_shift_of_a_table_gets_its_line():
    """The lines are those through the table's points, fitted on the axis that was asked for."""
    text = "name,reference,r,reference:s,s\na,70,60,1,1\nb,80,75,1,1\nc,90,80,1,1\n"
    points = parse_points(text, "x")
    assert set(points) == {"r"}
    assert fit_baselines(text, "x", "probit") == {"r": fit_baseline(points["r"], "probit")}
    assert isinstance(fit_baselines(text, "x", "logit")["r"], Baseline)

"""The recommended alpha, refinement, and the paper's Table 3, where only intervals can be compared."""

import math

import numpy as np
import pytest

from mergekit_wise.analysis import PREFERENCES, UNMEASURED, Candidate, Estimate, Measurements, Point, choose, columns
from mergekit_wise.analysis.decision import FINEST
from mergekit_wise.analysis.goal import ERRORS
from mergekit_wise.errors import ResultsError, UsageError


def chosen(candidates, prefer="average", **options):
    return choose(Measurements.of(candidates, {}), prefer=prefer, **options)


def recommend(candidates, prefer="average", **options):
    return chosen(candidates, prefer, **options).recommendation


def refine(candidates, prefer="average"):
    return tuple(point.alpha for point in chosen(candidates, prefer).finer)


def losses(candidates):
    return chosen(candidates).losses


def select_on(candidates, name):
    return recommend(candidates, select_on=name)


def candidate(alpha, reference, *shifts, total=1000):
    return Candidate(Point.of_alpha(alpha), (reference, total), tuple((shift, total) for shift in shifts))


def test_averages_count_each_shift_the_same():
    """A shift of ten images weighs as much as one of a thousand, as in the paper's tables."""
    mixed = Candidate(Point.of_alpha(0.5), (90, 100), ((5, 10), (1000, 1000)))
    assert mixed.shift_accuracy == pytest.approx(0.75)
    assert mixed.average == pytest.approx((0.9 + 0.75) / 2)


def test_averages_over_the_same_images_have_wider_intervals():
    """The mean of two equal results on the same images is as uncertain as each; the reference may be one of them."""
    sets, keys = ((800, 1000), (600, 1000)), ("a", "a", "a")
    independent, same = (
        Candidate(Point.of_alpha(0.5), (800, 1000), sets),
        Candidate(Point.of_alpha(0.5), (800, 1000), sets, same_images=keys),
    )
    low, high = (Estimate.of_counts(counts) for counts in ((600, 1000), (800, 1000)))
    assert same.shift_average.low == pytest.approx((low.low + high.low) / 2)
    assert same.both.high == pytest.approx(0.75 * high.high + 0.25 * low.high)
    assert same.both.value == pytest.approx(independent.both.value)
    assert independent.both.high < same.both.high
    assert Candidate(Point.of_alpha(0.5), (800, 1000), sets, same_images=("", "b", "c")).both == independent.both


def test_a_number_that_is_given_counts_in_place_of_the_share():
    """A given estimate such as macro F1 replaces the share of the counts."""
    f1 = Estimate(0.3, 0.2, 0.4)
    mixed = Candidate(Point.of_alpha(0.5), (90, 100), ((80, 100), (60, 100)), ("a", "b", "c"), (None, f1, None))
    assert mixed.measured[0] == Estimate.of_counts((90, 100))
    assert mixed.shift_accuracy == pytest.approx(0.45)
    assert mixed.average == pytest.approx(0.675)
    assert dict(columns(mixed))["b"] == f1


@pytest.mark.parametrize(
    ("mixed", "names"),
    [
        (
            Candidate(Point.of_alpha(0.5), (9, 10), ((8, 10), (7, 10))),
            "reference, shift 1, shift 2, average of shifts, average of both",
        ),
        (Candidate(Point.of_alpha(0.5), (9, 10), ((8, 10),), ("IN", "R")), "IN, R, average of both"),
        (Candidate(Point.of_alpha(0.5), UNMEASURED, ((8, 10), (7, 10)), ("IN", "R", "A")), "R, A, average of shifts"),
        (Candidate(Point.of_alpha(0.5), (9, 10), ()), "reference"),
    ],
)
def test_columns_are_the_papers(mixed, names):
    """Columns are the reference, the shifts and the averages; none is empty, and none repeats another."""
    assert ", ".join(name for name, _ in columns(mixed)) == names
    assert not any(math.isnan(number.value) for _, number in columns(mixed))


def test_what_is_missing_is_no_number():
    """A missing result is NaN, never 0, and the average is of what was measured."""
    assert math.isnan(Candidate(Point.of_alpha(0.5), UNMEASURED, ((8, 10),)).reference_accuracy)
    assert math.isnan(Candidate(Point.of_alpha(0.5), (8, 10), ()).shift_accuracy)
    assert (
        Candidate(Point.of_alpha(0.5), UNMEASURED, ((8, 10),)).average
        == Candidate(Point.of_alpha(0.5), (8, 10), ()).average
        == 0.8
    )
    assert math.isnan(Candidate(Point.of_alpha(0.5), UNMEASURED, ()).average)


def test_half_is_recommended_unless_another_alpha_is_significantly_better():
    """The default stays if 0.4 is better, but not significantly."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.4, 903, 702), candidate(0.5, 900, 700)])
    assert found.alpha == 0.5
    assert "0.4" in found.reason


@pytest.mark.parametrize(("reference", "shift"), [(900, 800), (980, 700)])
def test_the_best_is_recommended_if_it_is_significantly_better(reference, shift):
    """An alpha that is significantly better on the shifts or on the reference is recommended."""
    found = recommend([candidate(0.3, reference, shift), candidate(0.5, 900, 700), candidate(1.0, 900, 100)])
    assert found.alpha == 0.3


def test_half_may_be_the_best():
    """If 0.5 is the best alpha, the reason says that it is."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.5, 900, 700), candidate(1.0, 950, 400)])
    assert found.alpha == 0.5
    assert "mean" in found.reason


def test_without_half_the_best_is_taken():
    """If 0.5 was not evaluated, the best alpha is taken and the reason says so."""
    found = recommend([candidate(0.0, 700, 600), candidate(1.0, 950, 400)])
    assert found.alpha == 1.0
    assert "0.5" in found.reason


def test_of_equal_ones_the_nearest_to_half_is_taken():
    """Ties are broken by the distance to 0.5, whatever the order."""
    both = [candidate(0.0, 700, 600), candidate(0.4, 700, 600), candidate(1.0, 700, 600)]
    assert recommend(both).alpha == recommend(both[::-1]).alpha == 0.4
    around = [candidate(0.4, 700, 600), candidate(0.6, 700, 600)]
    assert recommend(around).alpha == recommend(around[::-1]).alpha == 0.4


def test_equal_averages_of_other_shifts_are_equal():
    """The same three shares in another order differ in the last bit of their mean; 0.6 must not win by that."""
    near, far = (
        Candidate(Point.of_alpha(alpha), (9, 12), tuple((n, 12) for n in shifts))
        for alpha, shifts in ((0.4, (1, 2, 3)), (0.6, (2, 3, 1)))
    )
    assert near.average <= far.average  # equal from Python 3.12 on, whose sum compensates
    assert recommend([near, far]).alpha == 0.4
    assert {loss.point.alpha for loss in losses([near, far]) if loss.column.startswith("average")} == {0.4}


CURVE = (
    candidate(0.0, 7000, 7000, total=10_000),
    candidate(0.2, 8000, 7800, total=10_000),
    candidate(0.4, 8600, 8000, total=10_000),
    candidate(0.5, 8800, 7500, total=10_000),
    candidate(0.8, 9490, 7300, total=10_000),
    candidate(1.0, 9500, 6000, total=10_000),
)
"""The average of both is best at 0.8 (0.8395), the reference at 1, the shifts at 0.4."""


@pytest.mark.parametrize(
    ("prefer", "alpha"), [("average", 0.8), ("both", 0.8), ("reference", 1.0), ("shifts", 0.4), ("no-regret", 1.0)]
)
def test_what_is_preferred_decides(prefer, alpha):
    """Each preference has its own best alpha, and the reason names the preference's number."""
    found = recommend(CURVE, prefer)
    assert found.alpha == alpha
    assert {"average": "mean", "both": "mean", "reference": "reference"}.get(prefer, "shift") in found.reason
    assert "--select-on" in found.warning


@pytest.mark.parametrize(("margin", "alpha"), [(0.0, 1.0), (0.005, 1.0), (0.01, 0.8), (0.09, 0.5), (0.11, 0.4)])
def test_no_regret_passes_over_what_may_lose_more_than_the_margin(margin, alpha):
    """The gap from an alpha's lower bound on the reference to the upper one of alpha 1 must be less than the margin."""
    found = recommend(CURVE, "no-regret", margin=margin)
    assert found.alpha == alpha
    assert "on the reference" in found.reason


def test_without_answers_the_reason_says_what_was_compared():
    """A reader sees that only intervals were compared, and what to do about it."""
    found = chosen(CURVE, remedy="--redo measures them")
    assert "only intervals could be compared" in found.recommendation.reason
    assert "--redo" in found.recommendation.reason
    assert (found.paired, found.cross_fit, found.differences) == (False, None, ())


def test_no_regret_without_the_fine_tuned_model_is_an_error():
    """Without alpha 1 there is no model to compare the reference with."""
    with pytest.raises(ResultsError, match="alpha 1 was not measured"):
        recommend(CURVE[:-1], "no-regret")


@pytest.mark.parametrize("prefer", [prefer for prefer in PREFERENCES if prefer not in ERRORS])
def test_without_a_reference_the_shifts_decide(prefer):
    """Without shifts the reference decides; either way the reason says what was not measured."""
    shifts = [Candidate(c.point, UNMEASURED, c.shifts) for c in CURVE]
    found = recommend(shifts, prefer)
    assert found.alpha == 0.4
    assert ("no reference was measured" in found.reason) == (prefer != "shifts")
    references = [Candidate(c.point, c.reference, ()) for c in CURVE]
    found = recommend(references, prefer)
    assert found.alpha == 1.0
    assert ("no shift was measured" in found.reason) == (prefer != "reference")


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "no alpha"),
        ([Candidate(Point.of_alpha(0.5), UNMEASURED, ())], "Neither a reference nor a shift"),
        ([candidate(0.5, 1, 1), candidate(0.5, 1, 1)], "alpha 0.5 occurs twice"),
        ([candidate(0.5, 1, 1), candidate(0.6, 1, 1, total=999)], "alpha 0.6 on reference \\(999 images\\)"),
        ([candidate(0.5, 1, 1), candidate(0.6, 1, 1, 1)], "alpha 0.6"),
        (
            [Candidate(Point.of_alpha(0.5), (1, 2), (), ("a",)), Candidate(Point.of_alpha(0.6), (1, 2), (), ("b",))],
            "alpha 0.6",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, message):
    """Candidates that were measured on different images are no measurements to choose from."""
    with pytest.raises(ResultsError, match=message):
        Measurements.of(candidates, {})


def test_an_unknown_preference_is_refused():
    """The error lists the known preferences."""
    with pytest.raises(UsageError, match="average, reference, shifts, both, no-regret"):
        recommend(CURVE, "best")


def test_a_held_out_set_chooses_without_a_warning():
    """A held-out set needs no warning, and 0.5 is its default, too; losses are those of what is reported."""
    own = [Candidate(c.point, UNMEASURED, c.shifts, ("", "held-out")) for c in CURVE]
    whole = chosen(CURVE, select_on="held-out", selected=Measurements.of(own, {}))
    found = whole.recommendation
    assert (found.alpha, found.warning) == (0.4, "")
    assert "held-out" in found.reason
    assert [loss.column for loss in whole.losses] == ["reference", "shift 1", "average of both"]
    close = [Candidate(Point.of_alpha(a), (n, 100), (), ("held-out",)) for a, n in ((0.3, 81), (0.5, 80))]
    assert recommend(close, select_on="held-out", selected=Measurements.of(close, {})).alpha == 0.5


def test_a_set_among_others_chooses_with_a_warning():
    """A data set that is also reported on makes the accuracy optimistic, so there is a warning."""
    named = [Candidate(c.point, c.reference, c.shifts, ("IN", "R")) for c in CURVE]
    assert select_on(named, "R").alpha == 0.4
    assert select_on(named, "IN").alpha == 1.0
    assert "--select-on" in select_on(named, "R").warning
    with pytest.raises(UsageError, match="on A.*IN, R"):
        select_on(named, "A")


def refined(curve, alphas, images, prefer="average"):
    """Candidates after refining until no alpha is added."""
    known = list(alphas)
    for _ in range(50):
        measured = [
            Candidate(Point.of_alpha(a), (round(images * r), images), ((round(images * s), images),))
            for a in known
            for r, s in [curve(a)]
        ]
        more = refine(measured, prefer)
        if not more:
            return measured
        assert not set(more) & set(known)
        known += more
    raise AssertionError("refining does not end")


def peak(alpha):
    return 0.9 - (alpha - 0.37) ** 2, 0.8 - (alpha - 0.37) ** 2


def test_refining_approaches_the_peak_and_terminates():
    """Refining approaches the maximum as far as the intervals allow, and then adds nothing."""
    few, many = (refined(peak, (0.0, 0.5, 1.0), images) for images in (1_000, 1_000_000))
    assert 3 < len(few) < len(many) < 20
    best = max(many, key=lambda c: c.average)
    assert best.alpha == pytest.approx(0.37, abs=0.04)
    ordered = sorted(many, key=lambda c: c.point)
    place = ordered.index(best)
    assert not best.both.differs(ordered[place - 1].both)
    assert not best.both.differs(ordered[place + 1].both)


def test_refining_terminates_at_a_step():
    """A curve that jumps is not bisected below the finest distance."""
    found = refined(lambda a: (0.9, 0.9) if a >= 0.3141 else (0.1, 0.1), np.linspace(0, 1, 11).round(1), 10_000)
    assert recommend(found).alpha == 0.5
    found = refined(lambda a: (0.9, 0.9) if 0.3141 <= a < 0.35 else (0.1, 0.1), (0.0, 0.32, 1.0), 10_000)
    gaps = np.diff(sorted(c.point.alpha for c in found))
    assert FINEST / 2 < gaps.min() <= FINEST


def test_refining_where_all_is_flat_adds_nothing():
    """Equal candidates, and a single one, have no neighbour that differs significantly."""
    assert refine([candidate(a, 800, 700) for a in (0.0, 0.5, 1.0)]) == ()
    assert refine([candidate(0.5, 800, 700)]) == ()


@pytest.mark.parametrize("prefer", ["reference", "shifts", "no-regret"])
def test_refining_follows_the_preference(prefer):
    """Alphas are added around the best alpha of the preferred number."""
    added = refine(CURVE, prefer)
    assert added == {"reference": (), "shifts": (0.3, 0.45), "no-regret": (0.9,)}[prefer]


TABLE = (
    Candidate(Point.of_alpha(0.0), (6830, 10_000), ((610, 1000), (480, 1000)), ("IN", "V2", "Sketch")),
    Candidate(Point.of_alpha(0.4), (8200, 10_000), ((720, 1000), (530, 1000)), ("IN", "V2", "Sketch")),
    Candidate(Point.of_alpha(0.5), (8250, 10_000), ((715, 1000), (500, 1000)), ("IN", "V2", "Sketch")),
    Candidate(Point.of_alpha(0.8), (8410, 10_000), ((700, 1000), (400, 1000)), ("IN", "V2", "Sketch")),
)


def test_each_column_has_its_own_best_alpha_and_what_half_loses():
    """Best alphas and losses agree with those computed by hand."""
    found = {loss.column: (loss.point.alpha, loss.best.value, loss.default.value, loss.loss) for loss in losses(TABLE)}
    assert found == {
        "IN": pytest.approx((0.8, 0.841, 0.825, 0.016)),
        "V2": pytest.approx((0.4, 0.72, 0.715, 0.005)),
        "Sketch": pytest.approx((0.4, 0.53, 0.5, 0.03)),
        "average of shifts": pytest.approx((0.4, 0.625, 0.6075, 0.0175)),
        "average of both": pytest.approx((0.4, (0.82 + 0.625) / 2, (0.825 + 0.6075) / 2, 0.00625)),
    }


def test_a_loss_is_significant_or_noise():
    """A loss of 1.6 points is significant on 10,000 images, and one of 3 points is not on 1000."""
    assert {loss.column: loss.significant for loss in losses(TABLE)} == {
        "IN": True,
        "V2": False,
        "Sketch": False,
        "average of shifts": False,
        "average of both": False,
    }


def test_half_loses_nothing_if_it_is_as_good():
    """Of equally good alphas 0.5 is the best, and its loss is 0."""
    flat = [Candidate(Point.of_alpha(alpha), (9, 10), ()) for alpha in (0.1, 0.5, 0.9)]
    (loss,) = losses(flat)
    assert (loss.point.alpha, loss.loss, loss.significant) == (0.5, 0.0, False)


def test_without_half_there_is_a_best_alpha_and_no_loss():
    """The loss is None, not 0, if 0.5 was not measured."""
    (loss,) = losses([Candidate(Point.of_alpha(a), UNMEASURED, ((n, 10),)) for a, n in ((0.0, 3), (1.0, 7))])
    assert (loss.point.alpha, loss.best.value, loss.default, loss.loss) == (1.0, 0.7, None, None)
    assert loss.column == "shift 1"


def test_an_alpha_that_occurs_twice_is_refused():
    """Two candidates of one alpha are an error."""
    with pytest.raises(ResultsError, match="occurs twice"):
        losses([*TABLE, TABLE[0]])

"""The recommended alpha."""

import math

import numpy as np
import pytest

from mergekit_wise.analysis import UNMEASURED, Candidate, Estimate, columns, losses, recommend, refine, select_on
from mergekit_wise.analysis.choice import FINEST, PREFERENCES
from mergekit_wise.errors import ResultsError, UsageError


def candidate(alpha, reference, *shifts, total=1000):
    return Candidate(alpha, (reference, total), tuple((shift, total) for shift in shifts))


def test_averages_count_each_shift_the_same():
    """A shift of ten images weighs as much as one of a thousand, as in the paper's tables."""
    mixed = Candidate(0.5, (90, 100), ((5, 10), (1000, 1000)))
    assert mixed.shift_accuracy == pytest.approx(0.75)
    assert mixed.average == pytest.approx((0.9 + 0.75) / 2)


def test_a_number_that_is_given_counts_in_place_of_the_share():
    """Macro F1 is no share of a count."""
    f1 = Estimate(0.3, 0.2, 0.4)
    mixed = Candidate(0.5, (90, 100), ((80, 100), (60, 100)), ("a", "b", "c"), (None, f1, None))
    assert mixed.measured[0] == Estimate.of_counts((90, 100))
    assert mixed.shift_accuracy == pytest.approx(0.45)
    assert mixed.average == pytest.approx(0.675)
    assert dict(columns(mixed))["b"] == f1


@pytest.mark.parametrize(
    ("mixed", "names"),
    [
        (
            Candidate(0.5, (9, 10), ((8, 10), (7, 10))),
            "reference, shift 1, shift 2, average of shifts, average of both",
        ),
        (Candidate(0.5, (9, 10), ((8, 10),), ("IN", "R")), "IN, R, average of shifts, average of both"),
        (Candidate(0.5, UNMEASURED, ((8, 10), (7, 10)), ("IN", "R", "A")), "R, A, average of shifts"),
        (Candidate(0.5, (9, 10), ()), "reference"),
    ],
)
def test_columns_are_the_papers(mixed, names):
    """What was not measured has none."""
    assert ", ".join(name for name, _ in columns(mixed)) == names
    assert not any(math.isnan(number.value) for _, number in columns(mixed))


def test_what_is_missing_is_no_number():
    """NaN, never 0; the average is of what there is."""
    assert math.isnan(Candidate(0.5, UNMEASURED, ((8, 10),)).reference_accuracy)
    assert math.isnan(Candidate(0.5, (8, 10), ()).shift_accuracy)
    assert Candidate(0.5, UNMEASURED, ((8, 10),)).average == Candidate(0.5, (8, 10), ()).average == 0.8
    assert math.isnan(Candidate(0.5, UNMEASURED, ()).average)


def test_half_is_recommended_where_nothing_separates_the_candidates():
    """0.4 is better by less than the intervals."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.4, 903, 702), candidate(0.5, 900, 700)])
    assert found.alpha == 0.5
    assert "0.4" in found.reason


@pytest.mark.parametrize(("reference", "shift"), [(900, 800), (980, 700)])
def test_the_best_is_recommended_where_it_is_better_beyond_the_intervals(reference, shift):
    """On the shifts, or on the reference."""
    found = recommend([candidate(0.3, reference, shift), candidate(0.5, 900, 700), candidate(1.0, 900, 100)])
    assert found.alpha == 0.3


def test_half_may_be_the_best():
    """Then that is the reason."""
    found = recommend([candidate(0.0, 700, 600), candidate(0.5, 900, 700), candidate(1.0, 950, 400)])
    assert found.alpha == 0.5
    assert "mean" in found.reason


def test_without_half_the_best_is_taken():
    """And it is said that 0.5 was not tried."""
    found = recommend([candidate(0.0, 700, 600), candidate(1.0, 950, 400)])
    assert found.alpha == 1.0
    assert "0.5" in found.reason


def test_of_equal_ones_the_nearest_to_half_is_taken():
    """Ties do not depend on the order."""
    both = [candidate(0.0, 700, 600), candidate(0.4, 700, 600), candidate(1.0, 700, 600)]
    assert recommend(both).alpha == recommend(both[::-1]).alpha == 0.4
    around = [candidate(0.4, 700, 600), candidate(0.6, 700, 600)]
    assert recommend(around).alpha == recommend(around[::-1]).alpha == 0.4


def test_equal_averages_of_other_shifts_are_equal():
    """The same three shares in another order differ in the last bit of their mean; 0.6 must not win by that."""
    near, far = (
        Candidate(alpha, (9, 12), tuple((n, 12) for n in shifts))
        for alpha, shifts in ((0.4, (1, 2, 3)), (0.6, (2, 3, 1)))
    )
    assert near.average <= far.average  # equal from Python 3.12 on, whose sum compensates
    assert recommend([near, far]).alpha == 0.4
    assert {loss.alpha for loss in losses([near, far]) if loss.column.startswith("average")} == {0.4}


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
    ("prefer", "alpha"), [("average", 0.8), ("both", 0.8), ("reference", 1.0), ("shifts", 0.4), ("no-regret", 0.8)]
)
def test_what_is_preferred_decides(prefer, alpha):
    """And the reason names it."""
    found = recommend(CURVE, prefer)
    assert found.alpha == alpha
    assert {"average": "mean", "both": "mean", "reference": "reference"}.get(prefer, "shifts") in found.reason
    assert "--select-on" in found.warning


def test_no_regret_passes_over_what_loses_on_the_reference():
    """0.8 is within alpha 1's interval on the reference, so the better shifts at 0.4 and 0.5 are out of reach."""
    found = recommend(CURVE, "no-regret")
    assert "on the reference" in found.reason
    assert "0.5" in found.reason
    flat = [candidate(0.3, 900, 700), candidate(0.5, 900, 699), candidate(1.0, 901, 500)]
    assert recommend(flat, "no-regret").alpha == 0.5


def test_no_regret_without_the_fine_tuned_end_is_an_error():
    """There is nothing to lose against."""
    with pytest.raises(ResultsError, match="alpha 1 was not measured"):
        recommend(CURVE[:-1], "no-regret")


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_without_a_reference_the_shifts_decide(prefer):
    """And without shifts the reference; the reason says so."""
    shifts = [Candidate(c.alpha, UNMEASURED, c.shifts) for c in CURVE]
    found = recommend(shifts, prefer)
    assert found.alpha == 0.4
    assert ("no reference was measured" in found.reason) == (prefer != "shifts")
    references = [Candidate(c.alpha, c.reference, ()) for c in CURVE]
    found = recommend(references, prefer)
    assert found.alpha == 1.0
    assert ("no shift was measured" in found.reason) == (prefer != "reference")


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        ([], "no alpha"),
        ([Candidate(0.5, UNMEASURED, ())], "Neither a reference nor a shift"),
        ([candidate(0.5, 1, 1), candidate(0.5, 1, 1)], "alpha 0.5 occurs twice"),
        ([candidate(0.5, 1, 1), candidate(0.6, 1, 1, total=999)], "alpha 0.6 on reference \\(999 images\\)"),
        ([candidate(0.5, 1, 1), candidate(0.6, 1, 1, 1)], "alpha 0.6"),
        ([Candidate(0.5, (1, 2), (), ("a",)), Candidate(0.6, (1, 2), (), ("b",))], "alpha 0.6"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, said):
    """By all that compares."""
    for compare in (recommend, refine, lambda c: select_on(c, "reference")):
        with pytest.raises(ResultsError, match=said):
            compare(candidates)


def test_an_unknown_preference_is_refused():
    """With those that are known."""
    with pytest.raises(UsageError, match="average, reference, shifts, both, no-regret"):
        recommend(CURVE, "best")


def test_a_set_of_its_own_chooses_without_a_warning():
    """0.5 is the default there as well."""
    own = [Candidate(c.alpha, UNMEASURED, c.shifts, ("", "held-out")) for c in CURVE]
    found = select_on(own, "held-out")
    assert (found.alpha, found.warning) == (0.4, "")
    assert "held-out" in found.reason
    close = [Candidate(a, (n, 100), (), ("held-out",)) for a, n in ((0.3, 81), (0.5, 80))]
    assert select_on(close, "held-out").alpha == 0.5


def test_a_set_among_others_chooses_with_a_warning():
    """It is reported on too."""
    named = [Candidate(c.alpha, c.reference, c.shifts, ("IN", "R")) for c in CURVE]
    assert select_on(named, "R").alpha == 0.4
    assert select_on(named, "IN").alpha == 1.0
    assert "--select-on" in select_on(named, "R").warning
    with pytest.raises(UsageError, match="on A.*IN, R"):
        select_on(named, "A")


def refined(curve, alphas, images, prefer="average"):
    """Alphas after refining until nothing is to be added."""
    known = list(alphas)
    for _ in range(50):
        measured = [
            Candidate(a, (round(images * r), images), ((round(images * s), images),))
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


def test_refining_comes_near_the_peak_and_ends():
    """As near as the intervals allow, and the neighbours of the best cannot be told from it."""
    few, many = (refined(peak, (0.0, 0.5, 1.0), images) for images in (1_000, 1_000_000))
    assert 3 < len(few) < len(many) < 20
    best = max(many, key=lambda c: c.average)
    assert best.alpha == pytest.approx(0.37, abs=0.04)
    ordered = sorted(many, key=lambda c: c.alpha)
    place = ordered.index(best)
    assert not best.both.differs(ordered[place - 1].both)
    assert not best.both.differs(ordered[place + 1].both)


def test_refining_ends_at_a_step():
    """A curve that jumps would be bisected forever."""
    found = refined(lambda a: (0.9, 0.9) if a >= 0.3141 else (0.1, 0.1), np.linspace(0, 1, 11).round(1), 10_000)
    assert recommend(found).alpha == 0.5
    found = refined(lambda a: (0.9, 0.9) if 0.3141 <= a < 0.35 else (0.1, 0.1), (0.0, 0.32, 1.0), 10_000)
    gaps = np.diff(sorted(c.alpha for c in found))
    assert FINEST / 2 < gaps.min() <= FINEST


def test_refining_where_all_is_flat_adds_nothing():
    """One alpha alone has no neighbour either."""
    assert refine([candidate(a, 800, 700) for a in (0.0, 0.5, 1.0)]) == ()
    assert refine([candidate(0.5, 800, 700)]) == ()


@pytest.mark.parametrize("prefer", ["reference", "shifts", "no-regret"])
def test_refining_follows_the_preference(prefer):
    """The reference is best at 1, the shifts at 0.4; no-regret is between."""
    added = refine(CURVE, prefer)
    assert added == {"reference": (), "shifts": (0.3, 0.45), "no-regret": (0.65, 0.9)}[prefer]


TABLE = (
    Candidate(0.0, (6830, 10_000), ((610, 1000), (480, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.4, (8200, 10_000), ((720, 1000), (530, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.5, (8250, 10_000), ((715, 1000), (500, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.8, (8410, 10_000), ((700, 1000), (400, 1000)), ("IN", "V2", "Sketch")),
)


def test_each_column_has_its_own_best_alpha_and_what_half_loses():
    """By hand."""
    found = {loss.column: (loss.alpha, loss.best.value, loss.default.value, loss.loss) for loss in losses(TABLE)}
    assert found == {
        "IN": pytest.approx((0.8, 0.841, 0.825, 0.016)),
        "V2": pytest.approx((0.4, 0.72, 0.715, 0.005)),
        "Sketch": pytest.approx((0.4, 0.53, 0.5, 0.03)),
        "average of shifts": pytest.approx((0.4, 0.625, 0.6075, 0.0175)),
        "average of both": pytest.approx((0.4, (0.82 + 0.625) / 2, (0.825 + 0.6075) / 2, 0.00625)),
    }


def test_a_loss_is_told_from_noise():
    """1.6 points of 10,000 images are beyond the intervals, 3 points of 1000 are not."""
    assert {loss.column: loss.significant for loss in losses(TABLE)} == {
        "IN": True,
        "V2": False,
        "Sketch": False,
        "average of shifts": False,
        "average of both": False,
    }


def test_half_loses_nothing_where_it_is_as_good():
    """Of equal ones it is the best."""
    flat = [Candidate(alpha, (9, 10), ()) for alpha in (0.1, 0.5, 0.9)]
    (loss,) = losses(flat)
    assert (loss.alpha, loss.loss, loss.significant) == (0.5, 0.0, False)


def test_without_half_there_is_a_best_alpha_and_no_loss():
    """None, not 0."""
    (loss, average) = losses([Candidate(a, UNMEASURED, ((n, 10),)) for a, n in ((0.0, 3), (1.0, 7))])
    assert (loss.alpha, loss.best.value, loss.default, loss.loss) == (1.0, 0.7, None, None)
    assert (loss.column, average.column) == ("shift 1", "average of shifts")


def test_an_alpha_that_stands_twice_is_refused():
    """Nobody knows which of the two counts."""
    with pytest.raises(ResultsError, match="occurs twice"):
        losses([*TABLE, TABLE[0]])

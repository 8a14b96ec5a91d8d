"""The paper's Table 3."""

import pytest

from mergekit_wise.analysis import UNMEASURED, Candidate, losses
from mergekit_wise.errors import ResultsError

CURVE = (
    Candidate(0.0, (6830, 10_000), ((610, 1000), (480, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.4, (8200, 10_000), ((720, 1000), (530, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.5, (8250, 10_000), ((715, 1000), (500, 1000)), ("IN", "V2", "Sketch")),
    Candidate(0.8, (8410, 10_000), ((700, 1000), (400, 1000)), ("IN", "V2", "Sketch")),
)


def test_each_column_has_its_own_best_alpha_and_what_half_loses():
    """By hand."""
    found = {loss.column: (loss.alpha, loss.best.value, loss.default.value, loss.loss) for loss in losses(CURVE)}
    assert found == {
        "IN": pytest.approx((0.8, 0.841, 0.825, 0.016)),
        "V2": pytest.approx((0.4, 0.72, 0.715, 0.005)),
        "Sketch": pytest.approx((0.4, 0.53, 0.5, 0.03)),
        "average of shifts": pytest.approx((0.4, 0.625, 0.6075, 0.0175)),
        "average of both": pytest.approx((0.4, (0.82 + 0.625) / 2, (0.825 + 0.6075) / 2, 0.00625)),
    }


def test_a_loss_is_told_from_noise():
    """1.6 points of 10,000 images are beyond the intervals, 3 points of 1000 are not."""
    assert {loss.column: loss.beyond for loss in losses(CURVE)} == {
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
    assert (loss.alpha, loss.loss, loss.beyond) == (0.5, 0.0, False)


def test_without_half_there_is_a_best_alpha_and_no_loss():
    """None, not 0."""
    (loss, average) = losses([Candidate(a, UNMEASURED, ((n, 10),)) for a, n in ((0.0, 3), (1.0, 7))])
    assert (loss.alpha, loss.best.value, loss.default, loss.loss) == (1.0, 0.7, None, None)
    assert (loss.column, average.column) == ("shift 1", "average of shifts")


def test_an_alpha_that_stands_twice_is_refused():
    """Nobody knows which of the two counts."""
    with pytest.raises(ResultsError, match="stands twice"):
        losses([*CURVE, CURVE[0]])

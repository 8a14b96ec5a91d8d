"""Softmax, margins and predictions, which are computed row by row."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mergekit_wise.analysis.logits import log_softmax, margins, predicted, require_batch, sound

INF, NAN = np.inf, np.nan
B = float(np.float32(3e38))
FLOATS = st.floats(-1e4, 1e4, width=32)


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(2, 7)), elements=FLOATS))
def test_rows_are_scipys_and_sorteds(logits):
    """The log-softmax is SciPy's in float64, margins are those of sorted rows, and ties go to the first class."""
    assert log_softmax(logits) == pytest.approx(scipy.special.log_softmax(logits.astype(np.float64), axis=1), abs=1e-9)
    ordered = [sorted(map(float, row)) for row in logits]
    assert margins(logits).tolist() == [row[-1] - row[-2] for row in ordered]
    assert predicted(logits).tolist() == [list(row).index(max(row)) for row in logits]


def test_large_logits_do_not_overflow():
    """The largest float32 logits overflow neither the softmax nor the logarithm of a vanishing probability."""
    assert log_softmax(np.array([[3e38, 0.0, -3e38]], np.float32)).tolist() == [[0.0, -B, -2 * B]]


def test_a_class_that_is_never_predicted_has_no_probability():
    """A column of -inf has probability 0 and takes no part in margins."""
    logits = np.array([[1.0, -INF, 3.0]], np.float32)
    assert log_softmax(logits)[0, 1] == -INF
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)
    assert margins(logits).tolist() == [2.0]


@pytest.mark.parametrize(
    ("f", "g", "good"),
    [
        ([1, 2], [1, 2], True),
        ([1, -INF], [1, -INF], True),
        ([NAN, 2], [1, 2], False),
        ([1, 2], [1, NAN], False),
        ([1, INF], [1, 2], False),
        ([-INF, -INF], [-INF, -INF], False),
        ([1, -INF], [1, 2], False),
        ([1, 2], [1, -INF], False),
        ([1, -INF], [1, NAN], False),
        ([1, -INF], [1, INF], False),
    ],
)
def test_unusable_rows_are_found(f, g, good):
    """Rows with NaN or inf, all -inf, or -inf where the other model has a number, are not sound."""
    rows = np.array([[0, 0], f], np.float32), np.array([[0, 0], g], np.float32)
    assert sound(*rows).tolist() == [True, good]
    assert sound(*(logits[:0] for logits in rows)).tolist() == []


@pytest.mark.parametrize(
    ("labels", "shapes"),
    [(2, [(2, 3), (2, 4)]), (2, [(2, 3), (1, 3)]), (1, [(2, 3)]), (2, [(2,)]), (2, [(2, 1)]), (0, [(0, 3), (0, 2)])],
)
def test_arrays_that_do_not_fit_are_refused(labels, shapes):
    """Arrays of different shapes, or without rows, raise ValueError, because nothing is broadcast."""
    with pytest.raises(ValueError, match="expected"):
        require_batch(np.zeros(labels, np.int64), *(np.zeros(shape, np.float32) for shape in shapes))

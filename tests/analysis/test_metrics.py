"""Metrics against scikit-learn, direct loops, and the spread that they claim."""

import pickle

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score

from mergekit_wise.analysis.metrics import is_right, score
from mergekit_wise.datasets.dataset import Metric

CASES = [(30, 5, 0.3), (400, 62, 0.7), (1000, 182, 0.05), (7, 7, 1.0), (50, 3, 0.0)]


def drawn(samples, classes, accuracy, seed=0):
    """Predictions with about the given accuracy, of unequal classes that need not all occur."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, samples, p=rng.dirichlet(np.full(classes, 0.5)))
    guesses = rng.integers(0, classes, samples)
    return np.where(rng.random(samples) < accuracy, labels, guesses), labels


@pytest.mark.parametrize("case", CASES)
def test_top_1_is_the_share_that_is_equal(case):
    """The value is the share of equal labels, with SciPy's exact interval."""
    predictions, labels = drawn(*case)
    found = score(Metric(), predictions, labels, case[1])
    equal = sum(int(p == y) for p, y in zip(predictions, labels, strict=True))
    wanted = binomtest(equal, len(labels)).proportion_ci(0.95, method="exact")
    assert (found.name, found.correct, found.total, found.value) == ("top-1", equal, case[0], equal / case[0])
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_mean_per_class_is_scikit_learns_balanced_accuracy(case):
    """The value is scikit-learn's; classes that do not occur do not count."""
    predictions, labels = drawn(*case)
    wanted = balanced_accuracy_score(labels, predictions)
    assert score(Metric("mean-per-class"), predictions, labels, case[1]).value == pytest.approx(wanted)
    assert score(Metric(), predictions, labels, case[1]).values["mean-per-class"] == pytest.approx(wanted)


@pytest.mark.parametrize("case", CASES)
def test_macro_f1_is_scikit_learns_over_the_classes_that_occur(case):
    """As WILDS calls it: labels=unique(y_true), so that a class that is only ever predicted does not count."""
    predictions, labels = drawn(*case)
    wanted = f1_score(labels, predictions, average="macro", labels=np.unique(labels), zero_division=0)
    found = score(Metric("macro-f1"), predictions, labels, case[1])
    assert found.value == pytest.approx(wanted)
    assert found.values["top-1"] == pytest.approx(np.mean(predictions == labels))
    assert (found.correct, found.total) == (int((predictions == labels).sum()), case[0])


def test_a_missing_prediction_is_wrong_for_every_metric():
    """Prediction -1 is neither a hit nor a false alarm of any class."""
    labels = np.array([0, 0, 1, 2, 2])
    predictions = np.array([0, -1, 1, -1, 2])
    for kind in ("top-1", "mean-per-class", "macro-f1"):
        got = score(Metric(kind), predictions, labels, 3).value
        wanted = {
            "top-1": 3 / 5,
            "mean-per-class": (1 / 2 + 1 + 1 / 2) / 3,
            "macro-f1": f1_score(labels, predictions, average="macro", labels=[0, 1, 2]),
        }[kind]
        assert got == pytest.approx(wanted)


def test_worst_group_is_the_lowest_of_those_that_have_samples():
    """Empty groups are ignored, and a sample outside all groups counts for top-1 alone."""
    labels = np.zeros(10, np.int64)
    predictions = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 1])
    groups = {"Asia": np.array([0, 1, 2, 3]), "Europe": np.array([4, 5, 6]), "Oceania": np.array([], np.int64)}
    found = score(Metric("worst-group", groups), predictions, labels, 2)
    lows = [binomtest(hits, n).proportion_ci(0.95, method="exact").low for hits, n in ((3, 4), (1, 3))]
    highs = [binomtest(hits, n).proportion_ci(0.975, method="exact").high for hits, n in ((3, 4), (1, 3))]
    assert (found.worst, found.value) == ("Europe", 1 / 3)
    assert found.values == {"top-1": 0.5, "mean-per-class": 0.5, "Asia": 0.75, "Europe": 1 / 3}
    assert found.interval == pytest.approx((min(lows), min(highs)))
    by_accuracy = score(Metric("top-1", groups), predictions, labels, 2)
    assert (by_accuracy.value, by_accuracy.values["Asia"], by_accuracy.values["Europe"]) == (0.5, 0.75, 1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_all_in_group_equals_the_loop_over_anchors_and_frames(seed):
    """pm-k: the anchor and every neighbour must be right; pm-0: the anchor alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 300)
    predictions = np.where(rng.random(300) < 0.9, labels, rng.integers(0, 4, 300))
    groups = {f"video {v}": rng.permutation(np.arange(10 * v, 10 * v + rng.integers(1, 11))) for v in range(30)}
    found = score(Metric("all-in-group", groups), predictions, labels, 4)
    anchors = whole = 0
    for rows in groups.values():
        anchors += predictions[rows[0]] == labels[rows[0]]
        whole += all(predictions[row] == labels[row] for row in rows)
    wanted = binomtest(int(whole), 30).proportion_ci(0.95, method="exact")
    assert found.value == whole / 30
    assert found.values["pm-0"] == anchors / 30
    assert found.interval == pytest.approx((wanted.low, wanted.high))
    assert (found.correct, found.total) == (int((predictions == labels).sum()), 300)


def test_any_accepted_class_is_right_and_others_are_not():
    """An image may have two right answers, and F1 counts an accepted prediction as the label."""
    metric = Metric(accepted=(frozenset({0, 3}), frozenset({1}), frozenset({2, 0})))
    labels, predictions = np.array([0, 1, 2]), np.array([3, 0, 0])
    assert is_right(metric, predictions, labels).tolist() == [True, False, True]
    assert score(metric, predictions, labels, 4).value == 2 / 3
    f1 = score(Metric("macro-f1", accepted=metric.accepted), predictions, labels, 4).value
    assert f1 == pytest.approx(f1_score(labels, [0, 0, 2], average="macro", zero_division=0))


@pytest.mark.parametrize("kind", ["mean-per-class", "macro-f1"])
def test_nineteen_in_twenty_intervals_hold_the_truth(kind):
    """About 95 % of intervals contain the value of the table that the samples were drawn from."""
    rng = np.random.default_rng(5)
    classes = 6
    table = rng.dirichlet(np.full(classes * classes, 0.4)).reshape(classes, classes) + 2 * np.eye(classes) / 12
    table = (table / table.sum()).ravel()
    many = rng.choice(classes * classes, 2_000_000, p=table)
    truth = score(Metric(kind), many % classes, many // classes, classes).value
    held = 0
    for _ in range(200):
        cells = rng.choice(classes * classes, 800, p=table)
        low, high = score(Metric(kind), cells % classes, cells // classes, classes).interval
        held += low <= truth <= high
    assert 180 <= held <= 199


@pytest.mark.parametrize("kind", ["mean-per-class", "macro-f1"])
def test_intervals_are_the_same_every_time_and_hold_the_value(kind):
    """Intervals are seeded; if nothing varies, they are the exact interval of top-1."""
    predictions, labels = drawn(400, 62, 0.7)
    first = score(Metric(kind), predictions, labels, 62)
    assert first == score(Metric(kind), predictions, labels, 62)
    assert first.interval[0] < first.value < first.interval[1]
    perfect = score(Metric(kind), labels, labels, 62).interval
    assert perfect == pytest.approx((0.025 ** (1 / 400), 1))


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "nothing to score"),
        ([0, 1], [0], "nothing to score"),
        ([0], [3], "out of the range"),
        ([3], [0], "out of the range"),
        ([-2], [0], "out of the range"),
        ([0], [-1], "out of the range"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, labels, message):
    """Zero images, different lengths and unknown classes are errors."""
    with pytest.raises(ValueError, match=message):
        score(Metric(), np.array(predictions, np.int64), np.array(labels, np.int64), 3)


@pytest.mark.parametrize("kind", ["worst-group", "all-in-group"])
def test_groups_that_are_all_empty_are_refused(kind):
    """A metric over groups needs a group with samples."""
    with pytest.raises(ValueError, match="none has samples"):
        score(Metric(kind, {"Asia": np.array([], np.int64)}), np.array([0]), np.array([0]), 1)


def test_metrics_travel_to_other_processes():
    """Groups and accepted classes survive pickling."""
    metric = Metric("all-in-group", {"a": np.array([1, 0])}, (frozenset({1}), frozenset({0})))
    again = pickle.loads(pickle.dumps(metric))
    assert score(again, np.array([1, 0]), np.array([1, 0]), 2) == score(metric, np.array([1, 0]), np.array([1, 0]), 2)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("shares", [[0.7] * 5, [0.7] * 60, [0.5, 0.7, 0.7, 0.7, 0.7], [0.5, 0.52, 0.7, 0.7]])
def test_the_interval_of_the_worst_group_holds_the_truth(shares):
    """In at least 94 % of 1000 samples, also where many groups are equally good, and any may look the worst."""
    rng, images = np.random.default_rng(0), 100
    groups = {str(number): np.arange(images) + images * number for number in range(len(shares))}
    metric, labels = Metric("worst-group", groups), np.zeros(images * len(shares), np.int64)
    held = 0
    for _ in range(1000):
        wrong = rng.random(len(labels)) >= np.repeat(shares, images)
        low, high = score(metric, wrong.astype(np.int64), labels, 2).interval
        held += low <= min(shares) <= high
    assert held >= 940

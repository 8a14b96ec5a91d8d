"""Accuracies estimated without labels: against the formulas stated plainly, and where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from mergekit_wise.analysis import Answers, Point
from mergekit_wise.analysis.back_test import back_test, certainty
from mergekit_wise.analysis.unlabelled import BOTH_ESTIMATED, ESTIMATED, Estimated, estimate, estimates
from mergekit_wise.datasets.dataset import Metric

POINTS = [Point.of_alpha(alpha) for alpha in (0.0, 0.5, 1.0)]


def answers(confidence, right, entropy=None, name="photos", classes=2):
    """Answers of V models with these confidences and right answers, [V, N]; entropies are those of two classes."""
    confidence, right = np.atleast_2d(np.asarray(confidence, np.float64)), np.atleast_2d(right).astype(bool)
    if entropy is None:
        rest = np.maximum(1 - confidence, 1e-300)
        entropy = -(confidence * np.log(confidence) + rest * np.log(rest))
    numbers = np.full((*confidence.shape, 4), np.nan, np.float32).transpose(0, 2, 1)
    numbers[:, 0], numbers[:, 3] = confidence, np.atleast_2d(entropy)
    labels = np.zeros(confidence.shape[1], np.int64)
    images = np.arange(confidence.shape[1])
    return Answers(name, name, "x", Metric(), classes, labels, images, "", (~right).astype(np.int32), numbers)


def random_answers(seed, images, mixtures=3, ties=None, name="photos"):
    """Answers that are more often right where a model is surer; with `ties`, of that many different confidences."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, (mixtures, images))
    if ties:
        confidence = 0.5 + np.ceil((confidence - 0.5) * 2 * ties) / ties / 2 * 0.99
    return answers(confidence, rng.random((mixtures, images)) < confidence, name=name)


def plain_atc(s, wrong, u):
    """The formula: t is the score below which there are as many of S as are wrong."""
    t = sorted(s)[wrong] if wrong < len(s) else np.inf
    assert sum(score < t for score in s) == wrong
    return sum(score >= t for score in u) / len(u)


def test_each_estimate_is_its_formula():
    """Without ties, ATC, DoC and AC are what the papers' formulas say, mixture by mixture."""
    reference, images = random_answers(0, 83), random_answers(1, 57)
    found = estimate(reference, images)
    for row in range(3):
        s, u = -reference.number("entropy")[row], -images.number("entropy")[row]
        right, own = reference.right[row], images.number("confidence")[row].astype(float)
        assert found.atc[row] == pytest.approx(plain_atc(s, int((~right).sum()), u))
        assert found.ac[row] == pytest.approx(sum(own) / len(own))
        difference = own.mean() - reference.number("confidence")[row].astype(float).mean()
        assert found.doc[row] == pytest.approx(right.mean() + difference)
        assert found.entropy[row] == pytest.approx(-u.astype(float).mean())


@pytest.mark.parametrize("ties", [None, 1, 2, 5])
def test_on_the_reference_itself_atc_and_doc_are_the_accuracy(ties):
    """S = U: exactly, also where many images have the same score, which then count in part."""
    reference = random_answers(2, 91, ties=ties)
    found = estimate(reference, reference)
    assert found.atc == pytest.approx(reference.right.mean(axis=1), abs=1e-12)
    assert found.doc == pytest.approx(reference.right.mean(axis=1), abs=1e-12)


def test_a_calibrated_model_s_average_confidence_is_its_accuracy():
    """Of the images with confidence 0.75, three quarters are right; of those with 0.5, a half."""
    images = answers([[0.75] * 4 + [0.5] * 2], [[1, 1, 1, 0, 1, 0]])
    assert estimate(images, images).ac == pytest.approx(images.right.mean(axis=1))


@pytest.mark.parametrize(("right", "expected"), [(True, 1.0), (False, 0.0)])
def test_a_reference_that_is_all_right_or_all_wrong_sets_the_extreme_threshold(right, expected):
    """No wrong answer: every image as sure as the least sure one counts. No right answer: none counts."""
    reference = answers([[0.6, 0.7, 0.8]], [[right] * 3])
    images = answers([[0.6, 0.9]], [[0, 0]])
    assert estimate(reference, images).atc == pytest.approx(expected)
    _, evidence = estimates(reference, [images], resamples=100)
    assert np.isfinite(evidence.draws).all()


def test_images_whose_logits_are_not_finite_are_never_estimated_right():
    """Their entropy and confidence are NaN: they count as below every threshold, and as confidence 0."""
    reference = answers([[0.6, 0.7, 0.8]], [[True] * 3])
    images = answers([[0.9, np.nan]], [[0, 0]])
    found = estimate(reference, images)
    assert found.atc == pytest.approx(0.5)
    assert found.ac == pytest.approx(0.45)


def test_labels_of_the_images_change_no_estimate():
    """With other labels and other predicted classes each number is the same."""
    reference, images = random_answers(0, 40), random_answers(1, 30)
    other = replace(images, labels=images.labels + 1, classes=images.classes[:, ::-1])
    for name in ("atc", "doc", "ac", "entropy"):
        assert getattr(estimate(reference, images), name).tolist() == getattr(estimate(reference, other), name).tolist()


def test_intervals_are_those_of_resampling_both_sets_of_images():
    """Against images that are drawn one by one: the spread of the estimates agrees."""
    reference, images = random_answers(3, 120), random_answers(4, 90)
    (found,), evidence = estimates(reference, [images], resamples=1500)
    rng, plain = np.random.default_rng(9), []
    for _ in range(1500):
        rows, own = np.sort(rng.integers(0, 120, 120)), np.sort(rng.integers(0, 90, 90))
        plain.append(estimate(reference_of(reference, rows), reference_of(images, own)).atc)
    assert evidence.draws[1].std(axis=0) == pytest.approx(np.std(plain, axis=0), rel=0.08)
    assert found.low == pytest.approx(np.quantile(plain, 0.025, axis=0), abs=0.03)
    assert found.high == pytest.approx(np.quantile(plain, 0.975, axis=0), abs=0.03)
    assert evidence.draws[1].mean(axis=0) == pytest.approx(np.mean(plain, axis=0), abs=0.01)


def reference_of(whole, rows):
    """The images in `rows`, some of them several times."""
    numbers = whole.numbers[:, :, rows]
    return replace(whole, labels=whole.labels[rows], classes=whole.classes[:, rows], numbers=numbers)


def test_mixtures_that_answer_alike_differ_in_no_resample():
    """The images of a resample are the same for all mixtures, and the columns are what their names say."""
    one = random_answers(5, 50, mixtures=1)
    two = random_answers(6, 40, mixtures=1)
    reference, images = one.of_models([0, 0]), two.of_models([0, 0])
    _, evidence = estimates(reference, [images, replace(images, title="more")])
    assert evidence.columns == ("photos", "photos", "more", ESTIMATED, BOTH_ESTIMATED)
    assert np.ptp(evidence.draws, axis=2).max() == 0
    assert evidence.values[3] == pytest.approx(evidence.values[1:3].mean(axis=0))
    assert evidence.values[4] == pytest.approx((evidence.values[0] + evidence.values[3]) / 2)
    assert evidence.draws[4] == pytest.approx((evidence.draws[0] + evidence.draws[3]) / 2, abs=1e-6)


def test_the_choice_of_atc_is_sure_only_if_the_paired_interval_says_so():
    """A mixture that passes the threshold on all images beats one that does on none; one equal to 0.5 does not."""
    right = [[i % 10 > 0 for i in range(200)]] * 3
    reference = answers([np.linspace(0.55, 0.95, 200)] * 3, right)
    sure, unsure = np.linspace(0.9, 0.99, 100), np.linspace(0.5, 0.52, 100)
    _, evidence = estimates(reference, [answers([unsure, unsure, sure], [[0] * 100] * 3)])
    found = certainty(evidence, POINTS)
    assert found.point.alpha == 1
    assert found.gain.low > 0.9
    _, evidence = estimates(reference, [answers([sure] * 3, [[0] * 100] * 3)])
    found = certainty(evidence, POINTS)
    assert found.point.alpha == 0.5
    assert (found.gain.low, found.gain.high) == (0, 0)
    assert certainty(evidence, [Point.of_alpha(alpha) for alpha in (0.1, 0.2, 0.3)]).gain is None


def made(atc, accuracy, ac=(0, 0, 0), entropy=(0, 0, 0)):
    """Estimates as they are stated."""
    rows = [np.array(each, np.float64) for each in (atc, atc, ac, entropy, atc, atc, accuracy)]
    return Estimated("x", "x", 10, *rows)


def test_a_back_test_says_what_choosing_without_labels_loses():
    """Worked by hand: errors are means over shifts and alphas; losses are against the best alpha by the labels."""
    shifts = [
        made([0.5, 0.7, 0.6], [0.6, 0.8, 0.9], entropy=(1, 2, 3)),
        made([0.2, 0.3, 0.9], [0.4, 0.6, 0.8], entropy=(1, 2, 3)),
    ]
    by_method = {trial.method: trial for trial in back_test(shifts, POINTS)}
    atc = by_method["ATC"]
    assert atc.error == pytest.approx((0.1 + 0.1 + 0.3 + 0.2 + 0.3 + 0.1) / 6)
    assert [point.alpha for _, point, _ in atc.each] == [0.5, 1]
    assert atc.per_shift == pytest.approx((0.1 + 0) / 2)
    assert (atc.point.alpha, atc.together) == (1, 0)
    lowest = by_method["lowest entropy"]
    assert lowest.error is None
    assert lowest.point.alpha == 0
    assert lowest.together == pytest.approx(0.85 - 0.5)
    always = by_method["always 0.5"]
    assert always.per_shift == pytest.approx((0.1 + 0.2) / 2)
    assert always.together == pytest.approx(0.85 - 0.7)
    without = back_test(shifts, [Point.of_alpha(alpha) for alpha in (0.1, 0.2, 0.3)])
    assert "always 0.5" not in [trial.method for trial in without]


def test_no_images_are_no_estimate():
    """Neither without a reference image nor without an image to estimate for."""
    some, none = random_answers(0, 5), random_answers(0, 0)
    for reference, images in ((some, none), (none, some)):
        with pytest.raises(ValueError, match="no images"):
            estimate(reference, images)

"""Comparisons image by image, against tests restated plainly and resampling in plain loops."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score, recall_score

from mergekit_wise.analysis.estimate import clopper_pearson
from mergekit_wise.analysis.metrics import score
from mergekit_wise.analysis.paired import evidence, halved, mcnemar
from mergekit_wise.datasets.dataset import Metric
from tests.analysis.mixtures import answers_of, correlated, right_or_wrong

RESAMPLES = 4000


def names(*answers):
    return {each.dataset: each.dataset for each in answers}


def compared(*answers, resamples=RESAMPLES):
    return evidence(answers, names(*answers), resamples=resamples)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (24, 0), (7, 7), (10, 3), (3, 10), (300, 240)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    """The p-value is the sum of the probabilities of what is no more probable, and scipy's."""
    images = first + second
    sums = [comb(images, k) for k in range(images + 1)]
    p = sum(each for each in sums if each <= sums[first]) / 2**images
    assert mcnemar(first, second) == pytest.approx(p)
    if images:
        assert mcnemar(first, second) == pytest.approx(binomtest(first, images, 0.5).pvalue)


LABELS = np.repeat(np.arange(5), (40, 30, 20, 9, 1))


def some_answers(models=3, seed=0):
    """Answers of models that are right more or less often, with labels of five classes of unequal size."""
    rng = np.random.default_rng(seed)
    right = correlated(rng, np.linspace(0.6, 0.75, models), len(LABELS), 0.5)
    return np.where(right, LABELS, rng.integers(0, 5, right.shape))


def groups():
    return {"a": np.arange(0, 60), "b": np.arange(60, 90), "c": np.arange(90, 100)}


METRICS = (
    Metric("top-1"),
    Metric("mean-per-class"),
    Metric("macro-f1"),
    Metric("worst-group", groups()),
    Metric("all-in-group", {str(start): np.arange(start, start + 4) for start in range(0, 100, 4)}),
    Metric("top-1", {}, tuple(frozenset({label, (label + 1) % 5}) for label in LABELS)),
)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.kind)
def test_values_are_those_that_records_report(metric):
    """Each data set counts in its own metric, and draws lie around the value."""
    classes = some_answers()
    found = compared(answers_of(classes, LABELS, metric=metric))
    wanted = [score(metric, row, LABELS, 5).value for row in classes]
    assert found.values[0] == pytest.approx(wanted, abs=1e-12)
    # The lowest of several groups is lower still in resamples, and in some of them a rare class does not occur.
    near = {"worst-group": 0.1, "macro-f1": 0.06}.get(metric.kind, 0.03)
    assert found.draws[0].mean(axis=0) == pytest.approx(wanted, abs=near)


def by_loop(statistic, strata, resamples=RESAMPLES):
    """The standard deviations of a statistic of drawn rows, resampled within strata in a plain loop."""
    rng = np.random.default_rng(1)
    members = [np.flatnonzero(strata == each) for each in np.unique(strata)]
    return np.std(
        [statistic(np.concatenate([rng.choice(m, len(m)) for m in members])) for _ in range(resamples)], axis=0
    )


def test_a_share_varies_as_scipys_bootstrap_has_it():
    """The spread of the paired difference of two accuracies is scipy's, but for a factor sqrt(N / (N - 1))."""
    right = correlated(np.random.default_rng(3), (0.6, 0.7), 200, 0.5)
    found = compared(right_or_wrong(right))
    difference = right[1].astype(float) - right[0]
    scipys = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="basic", rng=0).standard_error
    assert found.contrasts(0, 0).draws[:, 1].std() == pytest.approx(scipys, rel=0.05)


def test_a_mean_per_class_is_resampled_within_classes():
    """As in a plain loop that draws within each class; the class of a single image does not vary there."""
    classes = some_answers()
    found = compared(answers_of(classes, LABELS, metric=Metric("mean-per-class")))
    kinds = np.unique(LABELS)
    looped = by_loop(
        lambda rows: [recall_score(LABELS[rows], each[rows], labels=kinds, average="macro") for each in classes],
        LABELS,
        500,
    )
    # One image fewer is drawn of each class, so the variance is n / (n - 1) times that of the loop.
    assert found.draws[0].std(axis=0) == pytest.approx(looped, rel=0.15)


def test_macro_f1_is_scikit_learns_in_every_resample():
    """F1 averaged over the classes that occur, in resamples of all images.

    Drawn within classes, it would vary too little: how many images are predicted as a class varies as well.
    """
    classes = some_answers()
    found = compared(answers_of(classes, LABELS, metric=Metric("macro-f1")))
    looped = by_loop(
        lambda rows: [
            f1_score(LABELS[rows], each[rows], labels=np.unique(LABELS[rows]), average="macro", zero_division=0)
            for each in classes
        ],
        np.zeros(len(LABELS)),
        500,
    )
    assert found.draws[0].std(axis=0) == pytest.approx(looped, rel=0.15)


def test_a_worst_group_is_resampled_within_groups():
    """The lowest accuracy of a group in every resample, as in a plain loop."""
    right = some_answers() == LABELS
    found = compared(right_or_wrong(right, metric=Metric("worst-group", groups())))
    member = np.repeat([0, 1, 2], (60, 30, 10))

    def worst(rows):
        return [min(row[rows[member[rows] == g]].mean() for g in range(3)) for row in right]

    assert found.draws[0].std(axis=0) == pytest.approx(by_loop(worst, member, 2000), rel=0.12)


def test_sets_of_the_same_images_are_drawn_together():
    """The average of two data sets with the same answers to the same images varies like one, of others' less."""
    right = correlated(np.random.default_rng(3), (0.6, 0.7), 300, 0.5)
    same = [right_or_wrong(right, name=name, same_images="digits") for name in "ab"]
    other = [right_or_wrong(right, name=name) for name in "ab"]
    together, apart = compared(*same), compared(*other)
    assert together.columns == ("a", "b", "average of shifts")
    assert together.draws[2] == pytest.approx(together.draws[0], abs=1e-6)
    ratio = apart.draws[2].std(axis=0) / together.draws[2].std(axis=0)
    assert ratio == pytest.approx(np.full(2, 2**-0.5), rel=0.05)
    part = right_or_wrong(right[:, ::3], name="b", same_images="digits", images=np.arange(0, 300, 3))
    assert np.corrcoef(compared(same[0], part).draws[:2, :, 0])[0, 1] == pytest.approx(3**-0.5, abs=0.1)


def test_the_interval_of_one_accuracy_is_exact_and_of_others_by_percentiles():
    """Clopper-Pearson where the column is a share of answers, else where 95 % of the resamples lie."""
    right = correlated(np.random.default_rng(3), (0.6, 0.7), 300, 0.5)
    found = compared(right_or_wrong(right, name="a"), right_or_wrong(right[::-1], name="b"))
    one = found.estimate(0, 1)
    assert (one.low, one.high) == clopper_pearson(int(right[1].sum()), 300)
    average = found.estimate(2, 0)
    assert (average.low, average.high) == pytest.approx(
        tuple(np.percentile(found.draws[2, :, 0], (2.5, 97.5))), abs=2e-3
    )


def test_simultaneous_intervals_are_wider_the_more_mixtures_there_are():
    """One comparison needs 1.96 standard errors; the largest of many needs more; the base differs from itself by 0."""
    right = correlated(np.random.default_rng(3), np.full(8, 0.7), 400, 0.3)
    contrasts = compared(right_or_wrong(right)).contrasts(0, 0)
    alone, two, all_others = (contrasts.simultaneous(1, among) for among in ([1], [1, 2], range(1, 8)))
    assert alone == contrasts.pointwise(1)
    assert alone.high - alone.low < two.high - two.low < all_others.high - all_others.low
    assert contrasts.lower(1, range(1, 8)) > all_others.low
    assert contrasts.pointwise(0) == contrasts.simultaneous(0, [0, 1])
    assert contrasts.pointwise(0).low == contrasts.pointwise(0).high == 0


@pytest.mark.parametrize("images", [50, 400])
def test_intervals_agree_with_mcnemars_test(images):
    """Where only one of two models is right on some images, the interval excludes 0 as the exact test does.

    They may differ where p lies between 0.02 and 0.08.
    """
    for only_first in range(13):
        for only_second in range(13):
            right = np.ones((2, images), bool)
            right[1, :only_first] = False
            right[0, only_first : only_first + only_second] = False
            interval = compared(right_or_wrong(right), resamples=500).contrasts(0, 1).pointwise(0)
            p = mcnemar(only_first, only_second)
            if not 0.02 < p < 0.08:
                assert (interval.low > 0 or interval.high < 0) == (p < 0.05), (only_first, only_second)


def test_equal_answers_to_few_images_do_not_show_that_models_are_equal():
    """The interval of the difference has a width that shrinks with the number of images."""
    widths = []
    for images in (100, 1000):
        difference = compared(right_or_wrong(np.ones((2, images), bool)), resamples=10).contrasts(0, 0).pointwise(1)
        assert difference.value == 0
        widths.append(difference.high - difference.low)
    assert widths == pytest.approx([0.0554, 0.00554], rel=0.01)


def test_halves_keep_classes_groups_and_same_images_together():
    """Every class and group is halved, frames of a group stay together, and the same images are split alike."""
    per_class = answers_of(some_answers(), LABELS, metric=Metric("mean-per-class"), name="a", same_images="x")
    plain = right_or_wrong(np.ones((3, 50), bool), name="b", same_images="x", images=np.arange(0, 100, 2))
    frames = right_or_wrong(np.ones((3, 100), bool), name="c", metric=METRICS[4])
    first, second, third = halved([per_class, plain, frames], 0)
    assert [int(first[label == LABELS].sum()) for label in range(4)] == [20, 15, 10, pytest.approx(4.5, abs=0.5)]
    assert np.array_equal(first[::2], second)
    assert all(third[rows].all() or not third[rows].any() for rows in METRICS[4].groups.values())
    assert third.sum() == pytest.approx(50, abs=4)
    assert not np.array_equal(first, halved([per_class, plain, frames], 1)[0])


def coverage(rng, accuracies, images, draws, shifts=3):
    """How often the 95 % interval of the difference of an average of shifts holds the true one."""
    inside = 0
    truth = np.mean([each[1] - each[0] for each in accuracies])
    for _ in range(draws):
        sets = [
            right_or_wrong(correlated(rng, accuracies[number], images), name=str(number)) for number in range(shifts)
        ]
        interval = compared(*sets, resamples=200).contrasts(shifts, 0).pointwise(1)
        inside += interval.low <= truth <= interval.high
    return inside / draws


CURVES = ((0.60, 0.63), (0.75, 0.74), (0.40, 0.46))


@pytest.mark.slow
@pytest.mark.simulation
def test_intervals_of_the_difference_of_an_average_cover_what_they_say():
    """Of thousands of samples of 500 images, 94 to 96 % of the intervals hold the true difference."""
    assert 0.94 <= coverage(np.random.default_rng(0), CURVES, 500, 2000) <= 0.96


@pytest.mark.slow
@pytest.mark.simulation
def test_intervals_of_small_samples_cover_at_least_what_they_say():
    """With 40 images the two images that are added make intervals too wide rather than too narrow."""
    assert coverage(np.random.default_rng(0), CURVES, 40, 2000) >= 0.95

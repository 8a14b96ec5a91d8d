"""An alpha for each image: lambda, the mixture of Beta distributions, and what a sweep says of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.cluster import KMeans

from mergekit_wise.analysis import NUMBERS, Answers
from mergekit_wise.analysis.dynamic import expected, fit_mixture, maximised, mixing_lambda, nearest
from mergekit_wise.analysis.dynamic_gain import dynamic_gains, own_alphas
from mergekit_wise.analysis.paired import evidence
from mergekit_wise.datasets.dataset import Metric

PARAMETERS = ((2.0, 18.0), (30.0, 30.0), (25.0, 3.0))
SIZES = (3000, 2000, 4000)


@pytest.fixture(scope="module")
def simulated():
    """Draws from three Beta distributions, and which one each is from."""
    rng = np.random.default_rng(0)
    draws = [rng.beta(*parameters, size) for parameters, size in zip(PARAMETERS, SIZES, strict=True)]
    return np.concatenate(draws), np.repeat(np.arange(3), SIZES)


def test_lambda_is_the_share_of_the_fine_tuned_models_certainty():
    """Lambda is exp(-H1) / (exp(-H0) + exp(-H1)), also where both underflow; 0.5 where an entropy is unknown."""
    zeroshot, finetuned = np.array([0.2, 1.5, 0.0, 7.0]), np.array([0.9, 0.1, 0.0, 7.0])
    plain = np.exp(-finetuned) / (np.exp(-zeroshot) + np.exp(-finetuned))
    assert mixing_lambda(zeroshot, finetuned) == pytest.approx(plain, rel=1e-14)
    assert mixing_lambda(np.array([0.0, np.nan]), np.array([2000.0, 0.3])).tolist() == pytest.approx([0.0, 0.5])


def test_the_parameters_of_simulated_mixtures_are_recovered(simulated):
    """Means, weights, parameters and members of three Beta distributions are found again."""
    lambdas, origin = simulated
    fitted = fit_mixture(lambdas, 3)
    for number, (a, b) in enumerate(PARAMETERS):
        assert fitted.alphas[number] == pytest.approx(a / (a + b), abs=0.01)
        assert fitted.a[number] == pytest.approx(a, rel=0.2)
        assert fitted.b[number] == pytest.approx(b, rel=0.2)
        assert fitted.weights[number] == pytest.approx(SIZES[number] / sum(SIZES), abs=0.01)
    assert (fitted.members == origin).mean() > 0.98
    assert fitted.alphas == pytest.approx(fitted.a / (fitted.a + fitted.b), abs=1e-9)


def test_a_step_is_that_of_expectation_maximisation(simulated):
    """Shares are Bayes' rule with scipy's densities; parameters have the mean and variance of an image's shares."""
    lambdas, _ = simulated
    a, b, weights = np.array([2.0, 8.0]), np.array([5.0, 3.0]), np.array([0.3, 0.7])
    densities = np.array([w * beta.pdf(lambdas, p, q) for w, p, q in zip(weights, a, b, strict=True)])
    shares = expected(lambdas, a, b, weights)
    assert shares == pytest.approx(densities / densities.sum(axis=0), rel=1e-9)
    for number, (p, q, weight) in enumerate(zip(*maximised(lambdas, shares), strict=True)):
        mean = np.average(lambdas, weights=shares[number])
        assert beta.mean(p, q) == pytest.approx(mean, rel=1e-9)
        assert beta.var(p, q) == pytest.approx(np.average((lambdas - mean) ** 2, weights=shares[number]), rel=1e-9)
        assert weight == pytest.approx(shares[number].sum() / len(lambdas), rel=1e-12)


def test_the_fit_is_a_fixed_point_of_the_steps(simulated):
    """Another round of both steps leaves the fitted means where they are."""
    lambdas, _ = simulated
    fitted = fit_mixture(lambdas, 3)
    a, b, _ = maximised(lambdas, expected(lambdas, fitted.a, fitted.b, fitted.weights))
    assert a / (a + b) == pytest.approx(fitted.alphas, abs=1e-5)


def test_one_cluster_is_at_the_mean_of_all(simulated):
    """K = 1 gives every image the mean of all lambdas."""
    fitted = fit_mixture(simulated[0], 1)
    assert fitted.alphas == pytest.approx([simulated[0].mean()], rel=1e-12)
    assert not fitted.members.any()


def test_separate_groups_are_those_of_k_means():
    """Where groups do not touch, the members are those of scikit-learn's k-means."""
    rng = np.random.default_rng(1)
    lambdas = np.concatenate([rng.normal(centre, 0.01, 50) for centre in (0.2, 0.5, 0.8)])
    theirs = KMeans(3, n_init=5, random_state=0).fit(lambdas[:, None])
    ranks = np.argsort(np.argsort(theirs.cluster_centers_[:, 0]))
    assert np.array_equal(fit_mixture(lambdas, 3).members, ranks[theirs.labels_])


@pytest.mark.parametrize(
    ("lambdas", "alphas", "members"),
    [
        ([0.5] * 4, [0.5], [0, 0, 0, 0]),
        ([0.3], [0.3], [0]),
        ([0.0, 0.0], [0.0], [0, 0]),
        ([0.0, 1.0, 0.0, 1.0], [0.0, 1.0], [0, 1, 0, 1]),
        ([0.9, 0.2, 0.2], [0.2, 0.9], [1, 0, 0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_lambdas_that_are_equal_few_or_certain_make_fewer_clusters(lambdas, alphas, members):
    """There are no more clusters than values, and all numbers are finite, also at lambda 0 and 1."""
    fitted = fit_mixture(np.array(lambdas), 3)
    assert fitted.alphas.tolist() == pytest.approx(alphas, abs=1e-12)
    assert fitted.members.tolist() == members
    assert np.isfinite([*fitted.a, *fitted.b]).all()
    assert (fitted.asked, fitted.counts.sum()) == (3, len(lambdas))


@pytest.mark.filterwarnings("error")
def test_any_lambdas_can_be_fitted():
    """Random numbers, many of them 0, 1 or equal, give alphas in [0, 1] and weights that add up to 1."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        count, clusters = int(rng.integers(1, 40)), int(rng.integers(1, 7))
        lambdas = np.round(rng.beta(*rng.uniform(0.05, 3, 2), count), int(rng.integers(1, 12)))
        fitted = fit_mixture(lambdas, clusters)
        assert ((fitted.alphas >= 0) & (fitted.alphas <= 1)).all()
        assert fitted.weights.sum() == pytest.approx(1)
        assert (np.diff(fitted.alphas) >= 0).all()
        assert len(fitted.alphas) <= min(clusters, len(set(lambdas)))


def test_nothing_can_be_fitted_to_nothing():
    """Without images, or without clusters, there is no mixture."""
    for lambdas, clusters in (([], 3), ([0.5], 0)):
        with pytest.raises(ValueError, match="cannot fit"):
            fit_mixture(np.array(lambdas), clusters)


def test_the_nearest_swept_number_is_found():
    """Of two equally near numbers the first is taken, whatever the rounding of 0.1 + 0.2."""
    assert nearest(np.array([0.0, 0.26, 0.25, 0.1 + 0.05, 1.0]), [0.0, 0.2, 0.3, 0.1, 1.0]).tolist() == [0, 2, 1, 1, 4]


ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def answered(name="d", role="shift", images=400, seed=0):
    """Answers of five mixtures with entropies at random."""
    rng = np.random.default_rng(seed)
    return Answers(
        dataset=name,
        title=name.upper(),
        role=role,
        metric=Metric(),
        outputs=4,
        labels=rng.integers(0, 4, images),
        images=np.arange(images),
        same_images="",
        classes=rng.integers(0, 4, (len(ALPHAS), images)).astype(np.int32),
        numbers=rng.random((len(ALPHAS), len(NUMBERS), images)).astype(np.float32),
    )


def test_each_image_is_answered_at_the_alpha_nearest_to_its_own():
    """Without clusters, every image has the answer of the swept alpha that is nearest to its lambda."""
    each = answered()
    entropy = each.numbers[:, NUMBERS.index("entropy")].astype(float)
    for image, row in enumerate(own_alphas(each, ALPHAS, None)):
        own = np.exp(-entropy[4, image]) / (np.exp(-entropy[0, image]) + np.exp(-entropy[4, image]))
        assert ALPHAS[row] == min(ALPHAS, key=lambda alpha: abs(alpha - own))


def test_images_without_probabilities_are_answered_at_the_middle():
    """An image whose logits are not finite at one end decides about no cluster."""
    each = answered()
    numbers = each.numbers.copy()
    numbers[0, :, 7] = np.nan
    rest = np.delete(np.arange(400), 7)
    found, without = own_alphas(replace(each, numbers=numbers), ALPHAS, 2), own_alphas(each.of_images(rest), ALPHAS, 2)
    assert ALPHAS[found[7]] == 0.5
    assert np.array_equal(found[rest], without)


def test_gains_are_paired_differences_from_the_best_alpha_and_from_the_middle():
    """Values are plain accuracies of the picked answers, and gains those of `evidence` on one more mixture."""
    sets = [answered("r", "reference", 300, 1), answered("a", "shift", 400, 2), answered("b", "shift", 200, 3)]
    sets.append(answered("c", "companion", 50, 4))
    names = {"r": "Ref", "a": "A", "b": "B", "c": "C"}
    shared, own = dynamic_gains(sets, ALPHAS, names, clusters=2, resamples=200)
    assert (shared.clusters, own.clusters) == (2, None)
    assert [each.column for each in own.columns] == ["Ref", "A", "B", "average of shifts", "average of both"]
    accuracies, extended = {}, []
    for each in sets[:3]:
        rows = [own_alphas(each, ALPHAS, count) for count in (2, None)]
        picked = [[each.classes[row, image] for image, row in enumerate(taken)] for taken in rows]
        accuracies[names[each.dataset]] = (np.array(picked[1]) == each.labels).mean()
        extended.append(
            replace(
                each,
                classes=np.concatenate([each.classes, np.array(picked, np.int32)]),
                numbers=np.concatenate([each.numbers, each.numbers[:2]]),
            )
        )
        counts = own.served[names[each.dataset]]
        assert counts == {
            ALPHAS[row]: count for row, count in zip(*np.unique(rows[1], return_counts=True), strict=True)
        }
    values = {each.column: each.value for each in own.columns}
    assert {name: values[name] for name in accuracies} == pytest.approx(accuracies)
    assert values["average of shifts"] == pytest.approx((accuracies["A"] + accuracies["B"]) / 2)
    wanted = evidence(extended, names, resamples=200)
    for number, column in enumerate(own.columns):
        best = ALPHAS.index(column.best)
        assert wanted.values[number, best] == wanted.values[number, :5].max()
        assert column.over_best == wanted.difference(number, 6, best)
        assert column.over_default == wanted.difference(number, 6, 2)


def test_both_ends_are_needed():
    """Without alpha 0 and 1 there are no entropies to compare; without 0.5 there is no gain over it."""
    part = answered().of_models([0, 1, 4])
    (gain, _) = dynamic_gains([part], (0.0, 0.25, 1.0), {"d": "D"}, resamples=50)
    assert all(column.over_default is None for column in gain.columns)
    with pytest.raises(ValueError, match="alpha 0 and 1"):
        dynamic_gains([part], (0.0, 0.25, 0.9), {"d": "D"})

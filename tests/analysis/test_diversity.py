"""The paper's measures of diversity, each against an independent oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score

from mergekit_wise.analysis.diversity import CKAComplement, KappaComplement, KLDivergence, PredictionDiversity
from mergekit_wise.errors import ResultsError

ALL = [PredictionDiversity, KappaComplement, KLDivergence, CKAComplement]


def drawn(n=200, classes=7, seed=0, dtype=np.float32):
    """Logits of two models that are alike, and labels that they often get right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    f = rng.normal(20, 3, (n, classes)) + 4 * np.eye(classes)[labels]
    return f.astype(dtype), (f + rng.normal(0, 3, f.shape)).astype(dtype), labels


def after(kind, f, g, labels, cuts=()):
    """An accumulator that saw batches, cut at these places."""
    seen = kind()
    for rows in np.split(np.arange(len(f)), sorted(cuts)):
        batch = (f[rows], g[rows], labels[rows])
        seen.update(*batch[: 3 if kind is PredictionDiversity else 2])
    return seen


def test_prediction_diversity_is_the_share_that_exactly_one_gets_right():
    """By a loop."""
    f, g, labels = drawn()
    wanted = [
        (list(a).index(max(a)) == y) != (list(b).index(max(b)) == y) for a, b, y in zip(f, g, labels, strict=True)
    ]
    assert after(PredictionDiversity, f, g, labels).result() == sum(wanted) / len(wanted)
    assert 0.05 < sum(wanted) / len(wanted) < 0.95


@pytest.mark.parametrize("classes", [2, 7, 300])
def test_the_kappa_complement_is_scikit_learns(classes):
    """1 - cohen_kappa_score of the predicted classes."""
    f, g, labels = drawn(500, classes)
    wanted = 1 - cohen_kappa_score(f.argmax(1), g.argmax(1))
    assert after(KappaComplement, f, g, labels).result() == pytest.approx(wanted, abs=1e-12)


def test_models_that_say_one_class_alone_do_not_differ():
    """Where scikit-learn has 0 / 0."""
    same = np.tile([1.0, 0.0], (5, 1))
    assert after(KappaComplement, same, same, np.zeros(5, np.int64)).result() == 0
    assert after(KappaComplement, same, same[:, ::-1], np.zeros(5, np.int64)).result() == 1


def test_kappa_does_not_overflow():
    """Ten billion images."""
    counts = np.array([6, 4]) * 10**9
    assert KappaComplement(8 * 10**9, 10**10, counts, counts).result() == pytest.approx(0.2 / (1 - 0.52))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kl_divergence_is_scipys(dtype):
    """The mean of entropy(p_f, p_g), softmax in float64."""
    f, g, labels = drawn(dtype=dtype)
    p, q = softmax(f.astype(np.float64), axis=1), softmax(g.astype(np.float64), axis=1)
    assert after(KLDivergence, f, g, labels).result() == pytest.approx(entropy(p, q, axis=1).mean(), rel=1e-10)


def test_the_kl_divergence_is_stable_where_probabilities_vanish():
    """Logits 1000 apart: the probability of a class is 0 in float64, its logarithm is not."""
    f, g = np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]])
    assert after(KLDivergence, f, g, np.zeros(1, np.int64)).result() == pytest.approx(1000)
    never = np.array([[1.0, 2.0, -np.inf]])
    assert after(KLDivergence, never, never - 1, np.zeros(1, np.int64)).result() == 0


def test_the_cka_complement_is_the_papers_formula_and_that_of_kernels():
    """Of the whole at once; and tr(K L) / sqrt(tr(K K) tr(L L)) of the kernels K = S_f S_f^T, L = S_g S_g^T."""
    f, g, labels = drawn(dtype=np.float64)
    s_f, s_g = f - f.mean(0), g - g.mean(0)
    norm = np.linalg.norm
    formula = 1 - norm(s_g.T @ s_f) ** 2 / (norm(s_f.T @ s_f) * norm(s_g.T @ s_g))
    k, m = s_f @ s_f.T, s_g @ s_g.T
    kernels = 1 - np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    found = after(CKAComplement, f, g, labels, cuts=(1, 50, 51)).result()
    assert found == pytest.approx(formula, rel=1e-10)
    assert found == pytest.approx(kernels, rel=1e-10)
    assert 0.01 < found < 0.99


def test_cka_does_not_see_rotations_scales_and_offsets():
    """What it is made for; offsets a million times the spread leave ten digits, and nothing falls below 0."""
    for seed in range(20):
        f, _, labels = drawn(seed=seed, dtype=np.float64)
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))[0]
        for offset in (0, 1e6):
            found = after(CKAComplement, f, 3 * f @ rotation + offset, labels, cuts=(30, 60)).result()
            assert 0 <= found < 1e-9


def test_the_kl_divergence_of_models_that_are_nearly_the_same_is_not_below_zero():
    """Where rounding would have it."""
    for seed in range(20):
        f, _, labels = drawn(seed=seed, dtype=np.float64)
        near = f + 1e-9 * np.random.default_rng(seed).normal(size=f.shape)
        assert 0 <= after(KLDivergence, f, near, labels).result() < 1e-12


def test_cka_compares_outputs_of_different_width():
    """As of two feature spaces; a class that is never predicted is no column."""
    f, g, labels = drawn(dtype=np.float64)
    narrow = after(CKAComplement, f, g[:, :3], labels).result()
    padded = np.concatenate([g[:, :3], np.full((len(g), 2), -np.inf)], axis=1)
    assert after(CKAComplement, f, padded, labels, cuts=(17,)).result() == pytest.approx(narrow, rel=1e-12)


def test_cka_of_constant_outputs_is_no_number():
    """0 / 0."""
    f, g, labels = drawn()
    assert np.isnan(after(CKAComplement, f, np.ones_like(g), labels).result())


@pytest.mark.parametrize("kind", ALL)
def test_a_model_does_not_differ_from_itself(kind):
    """0, not -1e-17."""
    for seed in range(20):
        f, _, labels = drawn(seed=seed)
        assert 0 <= after(kind, f, f, labels, cuts=(13, 100)).result() < 1e-12


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5), st.integers(0, 60), st.randoms(use_true_random=False))
def test_batches_and_parts_give_what_the_whole_gives(kind, cuts, middle, random):
    """Any batches, put together in any order, empty ones included; counts exactly, sums to rounding."""
    f, g, labels = drawn(60)
    whole = after(kind, f, g, labels).result()
    parts = [
        after(kind, f[:middle], g[:middle], labels[:middle], [c for c in cuts if c < middle]),
        after(kind, f[middle:], g[middle:], labels[middle:], [c - middle for c in cuts if c > middle]),
        kind(),
    ]
    random.shuffle(parts)
    together = sum(parts[1:], parts[0]).result()
    if kind in (PredictionDiversity, KappaComplement):
        assert together == whole
    else:
        assert together == pytest.approx(whole, rel=1e-11)


@pytest.mark.parametrize("kind", ALL)
def test_putting_together_changes_neither_part(kind):
    """A rank's own numbers stay its own."""
    f, g, labels = drawn()
    parts = [after(kind, f[:90], g[:90], labels[:90]), after(kind, f[90:], g[90:], labels[90:])]
    before = [part.result() for part in parts]
    together = parts[0] + parts[1]
    together.update(*(f, g, labels)[: 3 if kind is PredictionDiversity else 2])
    (parts[0] + kind()).update(*(f, g, labels)[: 3 if kind is PredictionDiversity else 2])
    assert [part.result() for part in parts] == before


@pytest.mark.parametrize("kind", ALL)
def test_without_images_there_is_nothing_to_compare(kind):
    """An error that says so, rather than 0 / 0."""
    f, g, labels = drawn(0)
    with pytest.raises(ResultsError, match="No image"):
        after(kind, f, g, labels).result()
    with pytest.raises(ResultsError, match="No image"):
        (kind() + kind()).result()


@pytest.mark.parametrize("kind", ALL)
def test_batches_that_do_not_fit_are_refused(kind):
    """Nothing is broadcast."""
    f, g, labels = drawn()
    batch = (f, g[:1], labels)
    with pytest.raises(ValueError, match="expected"):
        kind().update(*batch[: 3 if kind is PredictionDiversity else 2])

"""How two models differ: each measure against an independent oracle, and all of them together."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import cohen_kappa_score

from mergekit_wise.analysis.disagreement import (
    CKAComplement,
    EnsembleAgreement,
    LogitDisagreement,
    Mean,
    disagreement,
    kappa_complement,
    kl_divergences,
    output_ensemble,
    overrides,
    prediction_diversity,
)
from mergekit_wise.analysis.logits import margins
from mergekit_wise.errors import ResultsError


def drawn(n=200, classes=7, seed=0, dtype=np.float32):
    """Logits of two models that are alike and of something between them, and labels that they often get right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    f = (rng.normal(20, 3, (n, classes)) + 4 * np.eye(classes)[labels]).astype(dtype)
    g = (f + rng.normal(0, 3, f.shape)).astype(dtype)
    return f, g, ((f + g) / 2 + rng.normal(0, 2, f.shape)).astype(dtype), labels


def cut(cuts, *arrays):
    """Batches of arrays, cut at these rows."""
    return [tuple(array[rows] for array in arrays) for rows in np.split(np.arange(len(arrays[0])), sorted(cuts))]


def cka(f, g, cuts=()):
    """CKA of batches."""
    seen = CKAComplement()
    for batch in cut(cuts, f, g):
        seen.update(*batch)
    return seen


def seen_in(f, g, mixed, labels, cuts=(), start=0):
    """The statistics of batches of logits; the merged model's may be None."""
    seen = LogitDisagreement()
    arrays = [f, g, labels, np.arange(start, start + len(f))] + ([] if mixed is None else [mixed])
    for a, b, y, indices, *more in cut(cuts, *arrays):
        seen.update((a, b, *more), y, indices)
    return seen


def report(seen, f, g, mixed, labels):
    """All numbers, with the predictions of the logits."""
    predictions = [None if logits is None else logits.argmax(1).astype(np.int32) for logits in (f, g, mixed)]
    return disagreement(seen, labels, *predictions)


def test_prediction_diversity_is_the_share_that_exactly_one_model_gets_right():
    """A loop over samples gives the same share."""
    f, g, _, labels = drawn()
    wanted = [
        (list(a).index(max(a)) == y) != (list(b).index(max(b)) == y) for a, b, y in zip(f, g, labels, strict=True)
    ]
    assert prediction_diversity(f.argmax(1), g.argmax(1), labels) == sum(wanted) / len(wanted)
    assert 0.05 < sum(wanted) / len(wanted) < 0.95


@pytest.mark.parametrize("classes", [2, 7, 300])
def test_the_kappa_complement_is_one_minus_scikit_learns_kappa(classes):
    """The predicted classes give 1 - cohen_kappa_score."""
    f, g, _, _ = drawn(500, classes)
    wanted = 1 - cohen_kappa_score(f.argmax(1), g.argmax(1))
    assert kappa_complement(f.argmax(1), g.argmax(1)) == pytest.approx(wanted, abs=1e-12)


def test_models_that_always_predict_the_same_single_class_do_not_differ():
    """Scikit-learn gives 0 / 0 there; two models with two different single classes agree as often as by chance."""
    same = np.zeros(5, np.int32)
    assert kappa_complement(same, same) == 0
    assert kappa_complement(same, same + 1) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kl_divergence_is_scipys(dtype):
    """Each value is entropy(p_f, p_g) of softmax in float64."""
    f, g, *_ = drawn(dtype=dtype)
    p, q = softmax(f.astype(np.float64), axis=1), softmax(g.astype(np.float64), axis=1)
    assert kl_divergences(f, g) == pytest.approx(entropy(p, q, axis=1), rel=1e-8, abs=1e-12)


def test_the_kl_divergence_is_stable_where_probabilities_vanish():
    """Logits 1000 apart have a probability of 0 in float64, but its logarithm is finite; -inf adds nothing."""
    f, g = np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]])
    assert kl_divergences(f, g) == pytest.approx(1000)
    never = np.array([[1.0, 2.0, -np.inf]])
    assert kl_divergences(never, never - 1) == 0


def test_the_cka_complement_is_the_papers_formula_and_that_of_kernels():
    """Both oracles use the whole at once; the kernels are K = S_f S_f^T and L = S_g S_g^T."""
    f, g, *_ = drawn(dtype=np.float64)
    s_f, s_g = f - f.mean(0), g - g.mean(0)
    norm = np.linalg.norm
    formula = 1 - norm(s_g.T @ s_f) ** 2 / (norm(s_f.T @ s_f) * norm(s_g.T @ s_g))
    k, m = s_f @ s_f.T, s_g @ s_g.T
    kernels = 1 - np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    found = cka(f, g, cuts=(1, 50, 51)).result()
    assert found == pytest.approx(formula, rel=1e-10)
    assert found == pytest.approx(kernels, rel=1e-10)
    assert 0.01 < found < 0.99


def test_cka_ignores_rotations_scales_and_offsets():
    """Offsets of a million times the spread leave ten digits, and nothing falls below 0."""
    for seed in range(20):
        f, *_ = drawn(seed=seed, dtype=np.float64)
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))[0]
        for offset in (0, 1e6):
            assert 0 <= cka(f, 3 * f @ rotation + offset, cuts=(30, 60)).result() < 1e-9


def test_cka_compares_outputs_of_different_width():
    """The two widths of feature spaces may differ; a class that is never predicted is not a column."""
    f, g, *_ = drawn(dtype=np.float64)
    padded = np.concatenate([g[:, :3], np.full((len(g), 2), -np.inf)], axis=1)
    assert cka(f, padded, cuts=(17,)).result() == pytest.approx(cka(f, g[:, :3]).result(), rel=1e-12)


def test_cka_of_constant_outputs_is_nan():
    """CKA of constant outputs is NaN, because the formula gives 0 / 0."""
    f, g, *_ = drawn()
    assert np.isnan(cka(f, np.ones_like(g)).result())


def test_cka_refuses_batches_of_different_length():
    """Batches of different length raise an error, because rows are never broadcast."""
    f, g, *_ = drawn()
    with pytest.raises(ValueError, match="expected"):
        CKAComplement().update(f, g[:1])
    with pytest.raises(ValueError, match="expected"):
        kl_divergences(f, g[:1])


def test_overrides_are_counted_where_the_two_models_disagree():
    """A loop counts with which model the ensemble predicts, and whether it is right."""
    f, g, mixed, labels = drawn(300, 5)
    kinds = {"zeroshot": [], "finetuned": [], "neither": []}
    for a, b, c, label in zip(f.argmax(1), g.argmax(1), mixed.argmax(1), labels, strict=True):
        if a != b:
            kinds["zeroshot" if c == a else "finetuned" if c == b else "neither"].append(c == label)
    wanted = {name: len(found) for name, found in kinds.items()}
    wanted |= {f"{name} right": sum(found) for name, found in kinds.items()}
    assert overrides(f.argmax(1), g.argmax(1), mixed.argmax(1), labels) == wanted
    assert all(kinds.values())


def test_nothing_is_overridden_where_the_two_models_agree():
    """Where the models agree nothing counts as overridden, even if the ensemble predicts another class."""
    f, _, mixed, labels = drawn()
    assert not any(overrides(f.argmax(1), f.argmax(1), mixed.argmax(1), labels).values())


def test_confidence_is_the_mean_margin():
    """Sorting in float64 gives the same mean, also in parts; a tie has a margin of 0."""
    f, *_ = drawn()
    ordered = np.sort(f.astype(np.float64), axis=1)
    a, b = Mean(), Mean()
    a.update(margins(f[:100]))
    b.update(margins(f[100:]))
    assert (b + a).result() == pytest.approx((ordered[:, -1] - ordered[:, -2]).mean(), rel=1e-12)
    assert margins(np.array([[1.0, 3.0, 3.0]])) == 0


def test_the_two_ensembles_agree_for_a_linear_classifier():
    """For any features, weights merged in float32 give the mixed outputs up to rounding."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(500, 64)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    before = rng.normal(size=(10, 64)).astype(np.float32) * 100
    after = before + rng.normal(size=before.shape).astype(np.float32) * 50
    mixed = np.float32(0.5) * before + np.float32(0.5) * after
    labels = rng.integers(0, 10, 500)
    seen = EnsembleAgreement()
    seen.update(features @ before.T, features @ after.T, features @ mixed.T, labels)
    exact = features.astype(np.float64) @ (0.5 * before.astype(np.float64) + 0.5 * after).T
    right = int((exact.argmax(1) == labels).sum())
    assert (seen.agree, seen.weights_right, seen.outputs_right) == (500, right, right)
    assert seen.result()["farthest"] < 1e-6


def test_the_two_ensembles_differ_where_more_than_a_head_does():
    """The counts and the largest difference are those of the whole; parts in any order give the same."""
    f, g, mixed, labels = drawn(300, 5)
    outputs = (f + g) / 2
    whole, parts = EnsembleAgreement(), [EnsembleAgreement(), EnsembleAgreement(), EnsembleAgreement()]
    whole.update(f, g, mixed, labels)
    for part, batch in zip(parts[:2], cut((120,), f, g, mixed, labels), strict=True):
        part.update(*batch)
    assert whole == parts[1] + parts[2] + parts[0]
    assert whole.agree == (mixed.argmax(1) == outputs.argmax(1)).sum()
    assert whole.weights_right == (mixed.argmax(1) == labels).sum()
    assert whole.outputs_right == (outputs.argmax(1) == labels).sum()
    farthest = np.abs(mixed - outputs).max() / np.abs(outputs).max()
    assert whole.result()["farthest"] == pytest.approx(farthest)
    assert 0 < whole.agree < 300


def test_a_class_that_is_never_predicted_makes_no_difference_of_ensembles():
    """The difference -inf - -inf is NaN, and is not counted."""
    f, g, _, labels = drawn()
    for logits in (f, g):
        logits[:, 2] = -np.inf
    seen = EnsembleAgreement()
    seen.update(f, g, 0.5 * f + 0.5 * g, labels)
    assert (seen.agree, seen.result()["farthest"]) == (200, 0.0)


def test_an_output_ensemble_at_alpha_0_and_1_is_the_model_itself():
    """Its bits are unchanged, inf included; between them the dtype is that of the logits."""
    f, g, *_ = drawn()
    f[0, 0] = np.inf
    assert output_ensemble(f, g, 0) is f
    assert output_ensemble(f, g, 1.0) is g
    assert output_ensemble(f, g, 0.25).dtype == np.float32
    assert output_ensemble(f, g, 0.25)[1:] == pytest.approx(
        0.75 * f[1:].astype(np.float64) + 0.25 * g[1:], rel=1e-5, abs=1e-6
    )


def test_a_model_does_not_differ_from_itself():
    """Every measure of diversity is 0, and never below it."""
    for seed in range(20):
        f, _, _, labels = drawn(seed=seed)
        found = report(seen_in(f, f, f, labels, cuts=(13, 100)), f, f, f, labels)
        for name in ("prediction diversity", "kappa complement", "kl divergence", "cka complement"):
            assert 0 <= found[name] < 1e-12, name


def test_the_kl_divergence_of_nearly_equal_models_is_not_below_zero():
    """The KL divergence is never negative, although rounding would make some values so."""
    for seed in range(20):
        f, _, _, labels = drawn(seed=seed, dtype=np.float64)
        near = f + 1e-9 * np.random.default_rng(seed).normal(size=f.shape)
        assert 0 <= report(seen_in(f, near, None, labels), f, near, None, labels)["kl divergence"] < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5), st.integers(0, 60), st.randoms(use_true_random=False))
def test_batches_and_parts_give_what_the_whole_gives(cuts, middle, random):
    """Any batches give the same, joined in any order, empty ones included, also after pickling as between processes."""
    f, g, mixed, labels = drawn(60)
    f[7, 1] = np.nan
    whole = report(seen_in(f, g, mixed, labels), f, g, mixed, labels)
    first = [array[:middle] for array in (f, g, mixed, labels)]
    second = [array[middle:] for array in (f, g, mixed, labels)]
    parts = [
        seen_in(*first, cuts=[c for c in cuts if c < middle]),
        seen_in(*second, cuts=[c - middle for c in cuts if c > middle], start=middle),
        LogitDisagreement(),
    ]
    random.shuffle(parts)
    before = pickle.dumps(parts)
    joined = pickle.loads(pickle.dumps(sum(parts, LogitDisagreement())))
    assert pickle.dumps(parts) == before
    found = report(joined, f, g, mixed, labels)
    assert found == pytest.approx(whole, rel=1e-11)
    for name in whole.keys() - {"kl divergence", "cka complement", "agreement: farthest"}:
        if "confidence" not in name:
            assert found[name] == whole[name], name


def test_joining_changes_neither_part():
    """A process's own numbers stay its own when others are added to a sum."""
    f, g, *_ = drawn()
    parts = [cka(f[:90], g[:90]), cka(f[90:], g[90:])]
    before = [part.result() for part in parts]
    joined = parts[0] + parts[1]
    joined.update(f, g)
    (parts[0] + CKAComplement()).update(f, g)
    assert [part.result() for part in parts] == before


def test_without_alpha_0_5_the_ensembles_numbers_are_left_out():
    """A sweep without alpha 0.5 has the other numbers, and none of the ensemble's."""
    f, g, mixed, labels = drawn()
    found = report(seen_in(f, g, None, labels), f, g, None, labels)
    complete = report(seen_in(f, g, mixed, labels), f, g, mixed, labels)
    assert found.keys() < complete.keys()
    assert {name for name in complete.keys() - found.keys() if "ensemble" not in name} == {
        *(f"overrides: {name}{right}" for name in ("zeroshot", "finetuned", "neither") for right in ("", " right")),
        *(f"agreement: {name}" for name in ("agree", "weights right", "outputs right", "farthest")),
    }


def test_images_with_broken_logits_are_left_out_and_counted():
    """The other numbers are those without these images, although their predicted classes are known."""
    f, g, mixed, labels = drawn()
    whole = [array[3:] for array in (f, g, mixed, labels)]
    clean = report(seen_in(*whole), *whole)
    f[0, 1], g[1, 2], mixed[2, 0] = np.nan, np.inf, -np.inf
    found = report(seen_in(f, g, mixed, labels), f, g, mixed, labels)
    assert found == pytest.approx(clean | {"left out": 3}, rel=1e-11)


def test_unreadable_images_are_not_compared():
    """Unreadable images, whose predicted class is -1, do not enter any number."""
    f, g, mixed, labels = drawn()
    whole = [array[2:] for array in (f, g, mixed, labels)]
    seen = seen_in(*whole, start=2)
    predictions = [logits.argmax(1) for logits in (f, g, mixed)]
    for classes in predictions:
        classes[:2] = -1
    assert disagreement(seen, labels, *predictions) == report(seen_in(*whole), *whole)


def test_without_images_there_is_nothing_to_compare():
    """Without images there is an error rather than 0 / 0."""
    f, g, _, labels = drawn(3)
    f[:] = np.nan
    with pytest.raises(ResultsError, match="No image"):
        report(seen_in(f, g, None, labels), f, g, None, labels)
    for measure in (Mean(), CKAComplement(), CKAComplement() + CKAComplement()):
        with pytest.raises(ResultsError, match="No image"):
            measure.result()
    with pytest.raises(ResultsError, match="No image"):
        kappa_complement(labels[:0], labels[:0])


def test_a_class_that_is_never_predicted_leaves_every_number_finite():
    """One column of all models is -inf, as for a class without a column in the head."""
    f, g, mixed, labels = drawn()
    for logits in (f, g, mixed):
        logits[:, 3] = -np.inf
    found = report(seen_in(f, g, mixed, labels), f, g, mixed, labels)
    assert found["total"] == 200
    assert np.isfinite(list(found.values())).all()

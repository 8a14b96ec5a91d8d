"""Overrides, confidence, and the two kinds of ensemble."""

import numpy as np
import pytest

from mergekit_wise.analysis import output_ensemble
from mergekit_wise.analysis.overrides import Confidence, EnsembleAgreement, OverrideCounts, Overrides
from mergekit_wise.errors import ResultsError


def drawn(n=300, classes=5, seed=0):
    """Logits of the two ends and of something between, and labels."""
    rng = np.random.default_rng(seed)
    f, g = rng.normal(size=(2, n, classes)).astype(np.float32)
    return f, g, ((f + g) / 2 + rng.normal(size=f.shape)).astype(np.float32), rng.integers(0, classes, n)


def test_overrides_are_counted_where_the_ends_disagree():
    """By a loop: with whom the ensemble goes, and whether it is right."""
    f, g, mixed, labels = drawn()
    kinds = {"zeroshot": [], "finetuned": [], "neither": []}
    for a, b, c, label in zip(f.argmax(1), g.argmax(1), mixed.argmax(1), labels, strict=True):
        if a != b:
            kinds["zeroshot" if c == a else "finetuned" if c == b else "neither"].append(c == label)
    wanted = OverrideCounts(300, *map(len, kinds.values()), *map(sum, kinds.values()))
    whole, parts = Overrides(), [Overrides(), Overrides(), Overrides()]
    whole.update(f, g, mixed, labels)
    for part, rows in zip(parts[1:], np.split(np.arange(300), [7]), strict=True):
        part.update(f[rows], g[rows], mixed[rows], labels[rows])
    assert whole.result() == (parts[2] + parts[0] + parts[1]).result() == wanted
    assert wanted.disagree == sum(map(len, kinds.values()))
    assert all(kinds.values())


def test_nobody_is_overridden_where_the_ends_agree():
    """Even if the ensemble says something else."""
    f, _, mixed, labels = drawn()
    seen = Overrides()
    seen.update(f, f, mixed, labels)
    assert seen.result() == OverrideCounts(300)


def test_confidence_is_the_mean_margin():
    """By sorting, in float64; a tie has none."""
    f, *_ = drawn()
    ordered = np.sort(f.astype(np.float64), axis=1)
    a, b = Confidence(), Confidence()
    a.update(f[:100])
    b.update(f[100:])
    assert (b + a).result() == pytest.approx((ordered[:, -1] - ordered[:, -2]).mean(), rel=1e-12)
    tie = Confidence()
    tie.update(np.array([[1.0, 3.0, 3.0]]))
    assert tie.result() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_two_ensembles_agree_for_a_linear_classifier(alpha):
    """Weights mixed in float32, as merge does, against outputs mixed: the same to rounding, whatever the features."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(500, 64)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    before = rng.normal(size=(10, 64)).astype(np.float32) * 100
    after = before + rng.normal(size=before.shape).astype(np.float32) * 50
    mixed = np.float32(1 - alpha) * before + np.float32(alpha) * after
    labels = rng.integers(0, 10, 500)
    seen = EnsembleAgreement(alpha)
    seen.update(features @ before.T, features @ after.T, features @ mixed.T, labels)
    found = seen.result()
    exact = features.astype(np.float64) @ ((1 - alpha) * before.astype(np.float64) + alpha * after).T
    right = int((exact.argmax(1) == labels).sum())
    assert (found.agree, found.weights_right, found.outputs_right) == (500, right, right)
    assert found.farthest < 1e-6


def test_the_two_ensembles_differ_where_something_else_than_a_head_does():
    """Counted, and by how much; parts in any order give the whole."""
    f, g, mixed, labels = drawn()
    outputs = (f + g) / 2
    whole, parts = EnsembleAgreement(), [EnsembleAgreement(), EnsembleAgreement(), EnsembleAgreement()]
    whole.update(f, g, mixed, labels)
    for part, rows in zip(parts[:2], np.split(np.arange(300), [120]), strict=True):
        part.update(f[rows], g[rows], mixed[rows], labels[rows])
    found = whole.result()
    assert found == (parts[1] + parts[2] + parts[0]).result()
    assert (found.total, found.agree) == (300, (mixed.argmax(1) == outputs.argmax(1)).sum())
    assert found.weights_right == (mixed.argmax(1) == labels).sum()
    assert found.outputs_right == (outputs.argmax(1) == labels).sum()
    assert found.farthest == pytest.approx(np.abs(mixed - outputs).max() / np.abs(outputs).max())
    assert 0 < found.agree < 300


def test_a_class_that_is_never_predicted_is_no_difference():
    """-inf less -inf is NaN, and must not show."""
    f, g, _, labels = drawn()
    for logits in (f, g):
        logits[:, 2] = -np.inf
    seen = EnsembleAgreement()
    seen.update(f, g, 0.5 * f + 0.5 * g, labels)
    assert (seen.result().agree, seen.result().farthest) == (300, 0.0)


def test_ensembles_at_other_alphas_are_not_counted_together():
    """A defect of the caller."""
    with pytest.raises(ValueError, match=r"0.3 and 0.5"):
        EnsembleAgreement(0.3) + EnsembleAgreement(0.5)


def test_the_ends_of_an_output_ensemble_are_the_models():
    """Their very bits, inf included; between them the dtype stays."""
    f, g, *_ = drawn()
    f[0, 0] = np.inf
    assert output_ensemble(f, g, 0) is f
    assert output_ensemble(f, g, 1.0) is g
    assert output_ensemble(f, g, 0.25).dtype == np.float32
    assert output_ensemble(f, g, 0.25)[1:] == pytest.approx(
        0.75 * f[1:].astype(np.float64) + 0.25 * g[1:], rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("kind", [Overrides, Confidence, EnsembleAgreement])
def test_without_images_there_is_no_result(kind):
    """An error that says so."""
    with pytest.raises(ResultsError, match="No image"):
        (kind() + kind()).result()

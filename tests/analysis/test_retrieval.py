"""Recall at k is what sorting by hand gives, and scikit-learn where a query has one right candidate."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from mergekit_wise.analysis.retrieval import first_right, hits


def by_sorting(similarities, wanted, owners, k):
    """Recall at k from a stable sort of each row."""
    found = 0
    for row, owner in zip(similarities.astype(np.float64), wanted, strict=True):
        best = np.argsort(-row, kind="stable")[:k]
        found += owner in [owners[index] for index in best]
    return found / len(similarities)


@pytest.mark.parametrize("k", [1, 5, 10, 100])
@pytest.mark.parametrize("levels", [None, 4])
def test_recall_is_that_of_a_stable_sort(k, levels):
    """With several right candidates, without and with many ties."""
    random = np.random.default_rng(k)
    owners = np.sort(random.integers(0, 20, 60))
    owners[:20] = np.arange(20)
    similarities = random.standard_normal((20, 60)).astype(np.float32)
    if levels:
        similarities = np.round(similarities * levels) / levels
    wanted = np.arange(20)
    got = hits(first_right(similarities, wanted, owners), k)
    assert got.mean() == by_sorting(similarities, wanted, owners, k)
    assert set(got) <= {0.0, 1.0}


@pytest.mark.parametrize("k", [1, 3])
def test_recall_with_one_right_candidate_is_scikit_learns_top_k_accuracy(k):
    """Each text belongs to one image."""
    random = np.random.default_rng(0)
    similarities = random.standard_normal((50, 8)).astype(np.float32)
    wanted = random.integers(0, 8, 50)
    wanted[:8] = np.arange(8)
    places = first_right(similarities, wanted, np.arange(8))
    assert hits(places, k).mean() == pytest.approx(top_k_accuracy_score(wanted, similarities, k=k))


def test_candidates_that_are_all_alike_are_found_by_chance_alone():
    """A model whose features have collapsed does not get every query right, nor every query wrong."""
    places = first_right(np.zeros((10, 10), np.float32), np.arange(10), np.arange(10))
    assert places.tolist() == list(range(10))
    assert hits(places, 1).mean() == 0.1


def test_nan_is_never_right():
    """A query without a number is a miss, and a candidate without one counts as more similar than any other."""
    similarities = np.array([[np.nan, np.nan], [np.nan, 0.5], [0.5, np.nan]], np.float32)
    places = first_right(similarities, np.array([0, 1, 1]), np.arange(2))
    assert places.tolist() == [2, 1, 2]

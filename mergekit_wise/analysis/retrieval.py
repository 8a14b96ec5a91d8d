"""Retrieval: at which place in a ranking a query finds what belongs to it, and recall at k. Knows no images or texts.

Recall at k is, as in the papers on CLIP, the share of queries for which at least one of the right candidates is among
the k most similar ones. It is not the share of right candidates that are found.
"""

import numpy as np
from numpy.typing import NDArray

Owners = NDArray[np.int64]


def first_right(similarities: NDArray[np.float32], wanted: Owners, owners: Owners) -> NDArray[np.int64]:
    """The place of each query's first right candidate in the order of falling similarity, from 0 on: int64 [Q].

    A candidate is right if its owner is the query's. Candidates of equal similarity are in the order of their indices,
    as a stable sort leaves them, so that a model for which all candidates are alike is right by chance alone. A
    similarity that is NaN is never right, and precedes all others.

    Args:
        similarities: of queries and candidates, float32 [Q, C].
        wanted: the owner whose candidates are right for each query, int64 [Q]; each has one.
        owners: of the candidates, int64 [C].
    """
    right = (wanted[:, None] == owners) & ~np.isnan(similarities)
    best = np.where(right, similarities, -np.inf)
    place = best.argmax(axis=1)
    value = best[np.arange(len(best)), place][:, None]
    above = ~(similarities <= value)  # which NaN is, too
    before = (similarities == value) & (np.arange(similarities.shape[1]) < place[:, None])
    found: NDArray[np.int64] = np.where(right.any(axis=1), (above | before).sum(axis=1), similarities.shape[1])
    return found


def hits(places: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 for each query with a right candidate among its first `k`, else 0; their mean is recall at k."""
    return (places < k).astype(np.float64)

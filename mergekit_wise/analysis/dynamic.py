"""An alpha for each image, from how certain the two models are of it (DaWin: Oh et al., ICLR 2025).

Images for which similar alphas are right share one mixture, so that K merged models serve any number of images. Knows
entropies and numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Clusters = NDArray[np.int64]

UNDECIDED = 0.5
"""The lambda of an image for which one of the two models gives no probabilities."""

_EDGE = 1e-6
"""Densities are evaluated no nearer to 0 and 1 than this, where a Beta distribution's may be infinite."""

_NARROWEST = 1e-8
"""The smallest variance of a component: with equal lambdas the likelihood would have no bound."""

_ROUNDS = 200
_SETTLED = 1e-7
"""Rounds of EM at most, and the change of all means below which it ends."""


@dataclass(frozen=True, slots=True)
class BetaMixture:
    """A mixture of K Beta distributions of lambda, by ascending mean, and which of them each of N images belongs to.

    Attributes:
        a, b: parameters, float64 [K].
        weights: how much of the mixture each component is, float64 [K]; they add up to 1.
        alphas: the mean of each, ``a / (a + b)``, with which its images are predicted; float64 [K].
        members: the most probable component of each image, int64 [N].
        asked: how many components were asked for; there are fewer if lambda has fewer values, or if one became empty.
    """

    a: Numbers
    b: Numbers
    weights: Numbers
    alphas: Numbers
    members: Clusters
    asked: int

    @property
    def counts(self) -> Clusters:
        """How many images belong to each component, int64 [K]; a broad one may have none of its own."""
        return np.bincount(self.members, minlength=len(self.alphas))


def mixing_lambda(zeroshot: NDArray[np.floating], finetuned: NDArray[np.floating]) -> Numbers:
    """How much of the fine-tuned model each image should get: ``exp(-H1) / (exp(-H0) + exp(-H1))``, float64 [N].

    Args:
        zeroshot: H0, the entropies of the zero-shot model's probabilities, in nats, [N].
        finetuned: H1, those of the fine-tuned model's.

    An image for which one of them is not finite gets 0.5. Source: Oh et al., equation 5.
    """
    difference = np.asarray(finetuned, np.float64) - np.asarray(zeroshot, np.float64)
    known = np.isfinite(difference)
    lambdas: Numbers = np.exp(-np.logaddexp(0, np.where(known, difference, 0.0)))
    return np.where(known, lambdas, UNDECIDED)


def fit_mixture(lambdas: Numbers, clusters: int) -> BetaMixture:
    """Fit a mixture of Beta distributions by expectation-maximisation that matches moments, from a k-means start.

    The same lambdas give the same mixture: nothing is random. Its alphas are means of lambdas, so K = 1 gives the mean
    of all.

    Args:
        lambdas: in [0, 1], [N].
        clusters: K, at least 1.

    Raises:
        ValueError: there is no lambda, or `clusters` is below 1.
    """
    if clusters < 1 or not len(lambdas):
        raise ValueError(f"cannot fit {clusters} clusters to {len(lambdas)} images")
    members = _nearest_means(lambdas, clusters)
    shares = np.eye(members.max() + 1)[members].T
    for _ in range(_ROUNDS):
        fitted = maximised(lambdas, shares)
        new = expected(lambdas, *fitted)
        filled = new.sum(axis=1) > _EDGE  # a component without images has no moments
        new = new[filled] / new[filled].sum(axis=0)
        moved = np.inf if len(new) < len(shares) else np.abs(_means(lambdas, new) - _means(lambdas, shares)).max()
        shares = new
        if moved < _SETTLED:
            break
    a, b, weights = maximised(lambdas, shares)
    alphas = np.clip(_means(lambdas, shares), 0.0, 1.0)
    order = np.argsort(alphas, kind="stable")
    return BetaMixture(a[order], b[order], weights[order], alphas[order], shares[order].argmax(axis=0), clusters)


def maximised(lambdas: Numbers, shares: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The M-step: a, b and weight of each component, whose mean and variance are those of its share of the images.

    Args:
        lambdas: [N].
        shares: how much of each image belongs to each component, [K, N].
    """
    mean = np.clip(_means(lambdas, shares), _EDGE, 1 - _EDGE)
    variance = (shares * (lambdas - mean[:, None]) ** 2).sum(axis=1) / shares.sum(axis=1)
    room = mean * (1 - mean)
    variance = np.clip(variance, np.minimum(_NARROWEST, room / 2), room * (1 - _EDGE))
    size = room / variance - 1
    return mean * size, (1 - mean) * size, shares.mean(axis=1)


def expected(lambdas: Numbers, a: Numbers, b: Numbers, weights: Numbers) -> Numbers:
    """The E-step: how much of each image belongs to each component, float64 [K, N]; each image's shares add up to 1."""
    inside = np.clip(lambdas, _EDGE, 1 - _EDGE)
    scale = [lgamma(one + other) - lgamma(one) - lgamma(other) for one, other in zip(a, b, strict=True)]
    logarithms = np.outer(a - 1, np.log(inside)) + np.outer(b - 1, np.log1p(-inside))
    logarithms += (np.array(scale) + np.log(weights))[:, None]
    logarithms -= logarithms.max(axis=0)
    densities = np.exp(logarithms)
    shares: Numbers = densities / densities.sum(axis=0)
    return shares


def nearest(values: Numbers, swept: Sequence[float]) -> NDArray[np.int64]:
    """The position of the nearest number in `swept` for each value, int64 [N]; of two equally near ones the first."""
    distances = np.abs(np.asarray(values)[:, None] - np.asarray(swept)[None, :])
    found: NDArray[np.int64] = np.round(distances, 9).argmin(axis=1).astype(np.int64)
    return found


def _means(lambdas: Numbers, shares: Numbers) -> Numbers:
    means: Numbers = (shares @ lambdas) / shares.sum(axis=1)
    return means


def _nearest_means(lambdas: Numbers, clusters: int) -> Clusters:
    """The clusters of k-means, numbered from 0 without gaps; it starts at the quantiles of the distinct values."""
    distinct = np.unique(lambdas)
    count = min(clusters, len(distinct))
    centres = distinct[((np.arange(count) + 0.5) * len(distinct) / count).astype(np.int64)]
    members = np.full(len(lambdas), -1)
    for _ in range(_ROUNDS):
        # Centres ascend, so the nearest one is found by the borders between them.
        found = np.searchsorted((centres[1:] + centres[:-1]) / 2, lambdas)
        found = np.unique(found, return_inverse=True)[1]
        if np.array_equal(found, members):
            break
        members = found
        centres = np.bincount(members, lambdas) / np.bincount(members)
    return members.astype(np.int64)

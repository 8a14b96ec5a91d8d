"""The temperature that logits are divided by so that their softmax is calibrated (Guo et al., ICML 2017).

Dividing changes no order of the logits, so no prediction. Knows numbers only.
"""

import math

import numpy as np
from numpy.typing import NDArray

COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of the temperature: beyond them, the labels do not determine one."""

PORTION = 1 << 22
"""Logits that are computed with at once."""

Logits = NDArray[np.float32]


def best_temperature(logits: Logits, labels: NDArray[np.int64]) -> float:
    """The temperature T with the lowest mean negative log-likelihood of the labels under softmax(logits / T).

    The likelihood is concave in 1 / T, so there is one maximum, where its derivative is zero; found in float64.

    Args:
        logits: float [N, K]; -inf for a class that cannot be predicted, else finite.
        labels: int64 [N], classes whose logits are finite.

    Returns:
        `COLDEST` if the likelihood still rises there (as when every label has the largest logit, which makes T vanish),
        `HOTTEST` if it does (as when logits say nothing about the labels); else the T between.
    """
    from scipy.optimize import brentq

    def slope(log_t: float) -> float:
        return _excess(logits, labels, math.exp(-log_t))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(low) <= 0:
        return COLDEST
    if slope(high) >= 0:
        return HOTTEST
    return math.exp(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))


def mean_nll(logits: Logits, labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """The mean negative log-likelihood, in nats, of the labels under softmax(logits / temperature)."""
    total = 0.0
    for start in range(0, len(labels), _rows(logits)):
        scaled = logits[start : start + _rows(logits)].astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        own = np.take_along_axis(scaled, labels[start : start + len(scaled), None], axis=1)[:, 0]
        total += float((np.log(np.exp(scaled).sum(axis=1)) - own).sum())
    return total / len(labels)


def _excess(logits: Logits, labels: NDArray[np.int64], scale: float) -> float:
    """The derivative of the mean NLL by `scale` = 1 / T: how far the expected logit exceeds the label's, on average."""
    total = 0.0
    for start in range(0, len(labels), _rows(logits)):
        part = logits[start : start + _rows(logits)].astype(np.float64)
        part -= part.max(axis=1, keepdims=True)
        weights = np.exp(part * scale)
        own = np.take_along_axis(part, labels[start : start + len(part), None], axis=1)[:, 0]
        expected = (weights * np.where(weights > 0, part, 0.0)).sum(axis=1) / weights.sum(axis=1)
        total += float((expected - own).sum())
    return total / len(labels)


def _rows(logits: Logits) -> int:
    return max(1, PORTION // int(logits.shape[1]))

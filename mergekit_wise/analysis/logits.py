"""Batches of logits: what is taken for granted of them, and what is computed row by row. Knows no model and no sums."""

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32] | NDArray[np.float64]
"""float32 or float64 [B, C]; -inf in the column of a class that is never predicted."""

Labels = NDArray[np.int64]
"""int64 [B], in [0, C)."""

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


def require_batch(labels: Labels | None, *models: Logits) -> None:
    """Raise ValueError unless all are of one shape [B, C], C > 1, and labels, where there are some, [B]."""
    shapes = {logits.shape for logits in models}
    (shape, *others) = shapes
    if others or len(shape) != 2 or shape[1] < 2:
        raise ValueError(f"expected logits of one shape [B, C] with at least two classes, found {sorted(shapes)}")
    if labels is not None and labels.shape != shape[:1]:
        raise ValueError(f"expected {shape[0]} labels, found an array of shape {labels.shape}")


def predicted(logits: Logits) -> Labels:
    """The class of the largest logit, int64 [B]; ties go to the lower index."""
    classes: Labels = logits.argmax(axis=1).astype(np.int64)
    return classes


def sound(*models: Logits) -> Flags:
    """The rows, bool [B], without NaN or inf in any model, and with -inf in the same columns of all, but not in all."""
    never = np.isneginf(models[0])
    rows: Flags = np.logical_not(never.all(axis=1))
    for logits in models:
        rows = rows & (np.isfinite(logits) ^ never).all(axis=1) & (np.isneginf(logits) == never).all(axis=1)
    return rows


def margins(logits: Logits) -> Numbers:
    """The largest logit less the second largest, float64 [B], at least 0; inf where only one class is predicted at all.

    The paper's measure of confidence (section 5.1): of unnormalised outputs, so the head's scale must be in them.
    """
    # Twice the largest: five times as fast as a partition.
    others, rows, first = logits.copy(), np.arange(len(logits)), predicted(logits)
    others[rows, first] = -np.inf
    difference: Numbers = logits[rows, first].astype(np.float64) - others.max(axis=1)
    return difference


def log_softmax(logits: Logits) -> Numbers:
    """Logarithms of the probabilities, float64 [B, C], without overflow; -inf for a class that is never predicted."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted

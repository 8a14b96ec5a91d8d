"""How differently two models predict: the paper's four measures of diversity (section 5.1 and appendix E).

f and g are the two models; wise takes the zero-shot one for f and the fine-tuned one for g. Each measure is an
accumulator: `update` with batches of both models' logits, `+` to put together what was seen apart, `result`. Nothing
that is kept grows with the number of images. All know logits and labels; none knows models or images.
"""

from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from mergekit_wise.analysis.logits import Labels, Logits, Numbers, log_softmax, predicted, require_batch
from mergekit_wise.errors import ResultsError


@dataclass(slots=True)
class PredictionDiversity:
    """The share of samples on which exactly one of the two is right. Counts, so exact in any order."""

    one_right: int = 0
    total: int = 0

    def update(self, f: Logits, g: Logits, labels: Labels) -> None:
        """Take in a batch: logits [B, C] of both, and labels [B]."""
        require_batch(labels, f, g)
        self.one_right += int(((predicted(f) == labels) != (predicted(g) == labels)).sum())
        self.total += len(labels)

    def __add__(self, other: "PredictionDiversity") -> "PredictionDiversity":
        return PredictionDiversity(self.one_right + other.one_right, self.total + other.total)

    def result(self) -> float:
        """In [0, 1]. Raises ResultsError if nothing was seen."""
        return self.one_right / seen(self.total)


def _no_classes() -> Labels:
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class KappaComplement:
    """Cohen's kappa complement, (1 - p_o) / (1 - p_e). Counts, so exact in any order.

    p_o is the share of samples for which both predict the same class, p_e the share that would be the same if the
    predictions of one were shuffled. 0: always the same; 1: as often as by chance.
    """

    agree: int = 0
    total: int = 0
    by_f: Labels = field(default_factory=_no_classes)
    by_g: Labels = field(default_factory=_no_classes)

    def update(self, f: Logits, g: Logits) -> None:
        """Take in a batch: logits [B, C] of both."""
        require_batch(None, f, g)
        classes_f, classes_g = predicted(f), predicted(g)
        self.agree += int((classes_f == classes_g).sum())
        self.total += len(f)
        self.by_f = _sum(self.by_f, np.bincount(classes_f, minlength=f.shape[1]))
        self.by_g = _sum(self.by_g, np.bincount(classes_g, minlength=f.shape[1]))

    def __add__(self, other: "KappaComplement") -> "KappaComplement":
        return KappaComplement(
            self.agree + other.agree,
            self.total + other.total,
            _sum(self.by_f, other.by_f),
            _sum(self.by_g, other.by_g),
        )

    def result(self) -> float:
        """At least 0; 0 also where both predict one single class. Raises ResultsError if nothing was seen."""
        total = seen(self.total)
        # N^2 (1 - p_e) and N^2 (1 - p_o), in Python's integers, which do not overflow.
        chance = total * total - sum(int(a) * int(b) for a, b in zip(self.by_f, self.by_g, strict=True))
        return total * (total - self.agree) / chance if chance else 0.0


@dataclass(slots=True)
class KLDivergence:
    """The mean over samples of sum_c p_f(c) log(p_f(c) / p_g(c)), in nats; p is the softmax of the logits."""

    divergence: float = 0.0
    total: int = 0

    def update(self, f: Logits, g: Logits) -> None:
        """Take in a batch: logits [B, C] of both. A class that f never predicts adds nothing."""
        require_batch(None, f, g)
        log_f, log_g = log_softmax(f), log_softmax(g)
        known = log_f > -np.inf
        differences = np.subtract(log_f, log_g, out=np.zeros_like(log_f), where=known)
        self.divergence += float((np.exp(log_f) * differences).sum(axis=1).sum())
        self.total += len(f)

    def __add__(self, other: "KLDivergence") -> "KLDivergence":
        return KLDivergence(self.divergence + other.divergence, self.total + other.total)

    def result(self) -> float:
        """At least 0; 0 where the probabilities are the same. Raises ResultsError if nothing was seen."""
        return max(0.0, self.divergence / seen(self.total))


def _nothing() -> Numbers:
    return np.zeros((0, 0))


@dataclass(slots=True)
class CKAComplement:
    """1 - |S_g^T S_f|_F^2 / (|S_f^T S_f|_F |S_g^T S_g|_F), linear centred kernel alignment of the outputs.

    S_f [N, C] are the outputs of f with the mean of each column taken off. What is kept are the means and the three
    products, about the means seen so far: putting parts together corrects them by the distance of the means (Chan,
    Golub and LeVeque, 1979), so that the parts give what the whole gives, and large means cancel nothing.
    """

    total: int = 0
    mean_f: Numbers = field(default_factory=lambda: np.zeros(0))
    mean_g: Numbers = field(default_factory=lambda: np.zeros(0))
    ff: Numbers = field(default_factory=_nothing)
    gg: Numbers = field(default_factory=_nothing)
    gf: Numbers = field(default_factory=_nothing)

    def update(self, f: Logits, g: Logits) -> None:
        """Take in a batch: outputs [B, C] of f and [B, D] of g. The column of a class never predicted adds nothing."""
        if f.ndim != 2 or g.ndim != 2 or len(f) != len(g):
            raise ValueError(f"expected outputs [B, C] and [B, D], found shapes {f.shape} and {g.shape}")
        if not len(f):
            return
        if not self.total:
            self._begin(f.shape[1], g.shape[1])
        s_f, new_f = _about(f, self.mean_f, self.total)
        s_g, new_g = _about(g, self.mean_g, self.total)
        self.ff += s_f.T @ s_f
        self.gg += s_g.T @ s_g
        self.gf += s_g.T @ s_f
        self.total, self.mean_f, self.mean_g = self.total + len(f), new_f, new_g

    def __add__(self, other: "CKAComplement") -> "CKAComplement":
        if not (self.total and other.total):
            return self._copy() if self.total else other._copy()
        total = self.total + other.total
        f, g = other.mean_f - self.mean_f, other.mean_g - self.mean_g
        weight = self.total * other.total / total
        return CKAComplement(
            total,
            self.mean_f + f * (other.total / total),
            self.mean_g + g * (other.total / total),
            self.ff + other.ff + weight * np.outer(f, f),
            self.gg + other.gg + weight * np.outer(g, g),
            self.gf + other.gf + weight * np.outer(g, f),
        )

    def result(self) -> float:
        """In [0, 1]; NaN where a model says the same of every sample. Raises ResultsError if nothing was seen."""
        seen(self.total)
        norms = float(np.linalg.norm(self.ff) * np.linalg.norm(self.gg))
        if norms == 0:
            return float("nan")
        return max(0.0, 1 - float(np.linalg.norm(self.gf)) ** 2 / norms)

    def _begin(self, width_f: int, width_g: int) -> None:
        self.mean_f, self.mean_g = np.zeros(width_f), np.zeros(width_g)
        self.ff, self.gg = np.zeros((width_f, width_f)), np.zeros((width_g, width_g))
        self.gf = np.zeros((width_g, width_f))

    def _copy(self) -> "CKAComplement":
        arrays = (self.mean_f, self.mean_g, self.ff, self.gg, self.gf)
        return CKAComplement(self.total, *(array.copy() for array in arrays))


def seen(total: int) -> int:
    """`total`, where it is not 0; else ResultsError."""
    if total == 0:
        raise ResultsError("No image was left to compare predictions on. Check that the data set has readable images.")
    return total


def _about(logits: Logits, mean: Numbers, total: int) -> tuple[Numbers, Numbers]:
    """A batch about its own means, [B + 1, C], and the means [C] of it and the `total` rows before.

    The last row makes the correction for the distance of the means part of the products, at no cost.
    """
    rows = len(logits)
    about = np.empty((rows + 1, logits.shape[1]))
    np.copyto(about[:rows], logits)
    about[:rows][np.isneginf(logits)] = 0
    own = about[:rows].mean(axis=0)
    about[:rows] -= own
    about[rows] = (own - mean) * sqrt(total * rows / (total + rows))
    return about, mean + (own - mean) * (rows / (total + rows))


def _sum(a: Labels, b: Labels) -> Labels:
    """Counts by class; an accumulator that saw nothing has no classes yet."""
    return b.astype(np.int64) if not len(a) else a if not len(b) else a + b

"""How two models differ on a data set: the paper's diversity, confidence and overrides (section 5.1, appendix E).

f and g are the two models: the zero-shot and the fine-tuned one. `prediction_diversity`, `kappa_complement` and
`overrides` are functions of predicted classes. What only logits show is summed batch by batch while they are there, by
`LogitDisagreement`, whose memory does not grow with the number of images. Knows no models and no images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import sqrt
from typing import Any

import numpy as np

from mergekit_wise.analysis.logits import (
    Labels,
    Logits,
    Numbers,
    log_softmax,
    margins,
    predicted,
    require_batch,
    sound,
)
from mergekit_wise.errors import ResultsError


def prediction_diversity(f: Labels, g: Labels, labels: Labels) -> float:
    """The share of samples on which exactly one of the two models is right, given predicted classes [N] and labels [N].

    Raises ResultsError if there are no samples.
    """
    return int(((f == labels) != (g == labels)).sum()) / _require_samples(len(labels))


def kappa_complement(f: Labels, g: Labels) -> float:
    """Cohen's kappa complement (1 - p_o) / (1 - p_e) of predicted classes [N], at least 0.

    p_o is the share of samples for which both models predict the same class, p_e the share that would be the same if
    the predictions of one were shuffled. 0: always the same, and also where both always predict the same single class;
    1: the same as often as by chance. Raises ResultsError if there are no samples.
    """
    total, agree = _require_samples(len(f)), int((f == g).sum())
    classes = int(max(f.max(), g.max())) + 1
    by_f, by_g = (np.bincount(predictions, minlength=classes).tolist() for predictions in (f, g))
    # N^2 (1 - p_e) and N^2 (1 - p_o), in Python's integers, which do not overflow.
    chance = total * total - sum(a * b for a, b in zip(by_f, by_g, strict=True))
    return total * (total - agree) / chance if chance else 0.0


def overrides(zeroshot: Labels, finetuned: Labels, ensemble: Labels, labels: Labels) -> dict[str, int]:
    """With which model the ensemble predicts where the two differ, and in how many of these samples it is right.

    All arguments are classes [N]. The counts are "zeroshot" (the zero-shot model overrides), "finetuned" (it is
    overridden), "neither" (the ensemble predicts a third class), and each with " right".
    """
    differ, right = zeroshot != finetuned, ensemble == labels
    kinds = {
        "zeroshot": differ & (ensemble == zeroshot),
        "finetuned": differ & (ensemble == finetuned),
        "neither": differ & (ensemble != zeroshot) & (ensemble != finetuned),
    }
    counts = {name: int(rows.sum()) for name, rows in kinds.items()}
    return counts | {f"{name} right": int((rows & right).sum()) for name, rows in kinds.items()}


def kl_divergences(f: Logits, g: Logits) -> Numbers:
    """sum_c p_f(c) log(p_f(c) / p_g(c)) of each sample, in nats, float64 [B]; p is the softmax of logits [B, C].

    A class that f never predicts adds nothing.
    """
    require_batch(None, f, g)
    log_f, log_g = log_softmax(f), log_softmax(g)
    known = log_f > -np.inf
    differences = np.subtract(log_f, log_g, out=np.zeros_like(log_f), where=known)
    divergences: Numbers = (np.exp(log_f) * differences).sum(axis=1)
    return divergences


def output_ensemble(zeroshot: Logits, finetuned: Logits, alpha: float) -> Logits:
    """(1 - alpha) f(x, theta_0) + alpha f(x, theta_1) of logits [B, C], in their dtype; unchanged at alpha 0 and 1."""
    if alpha in (0, 1):
        return finetuned if alpha else zeroshot
    return (1 - alpha) * zeroshot + alpha * finetuned


@dataclass(slots=True)
class Mean:
    """A mean over samples; `+` joins parts."""

    total: float = 0.0
    count: int = 0

    def update(self, values: Numbers) -> None:
        """Add samples, float64 [B]."""
        self.total += float(values.sum())
        self.count += len(values)

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    def result(self) -> float:
        """The mean. Raises ResultsError if there are no samples."""
        return self.total / _require_samples(self.count)


def _no_products() -> Numbers:
    return np.zeros((0, 0))


@dataclass(slots=True)
class CKAComplement:
    """1 - |S_g^T S_f|_F^2 / (|S_f^T S_f|_F |S_g^T S_g|_F), from linear centred kernel alignment of the outputs.

    S_f [N, C] are the outputs of f less the mean of each column. The means and the three products about them are kept;
    joining parts corrects the products for the distance of the means (Chan, Golub and LeVeque, 1979), so that parts
    give the same as the whole, and large means cancel no digits.
    """

    count: int = 0
    mean_f: Numbers = field(default_factory=lambda: np.zeros(0))
    mean_g: Numbers = field(default_factory=lambda: np.zeros(0))
    ff: Numbers = field(default_factory=_no_products)
    gg: Numbers = field(default_factory=_no_products)
    gf: Numbers = field(default_factory=_no_products)

    def update(self, f: Logits, g: Logits) -> None:
        """Add a batch: outputs [B, C] of f and [B, D] of g. The column of a class never predicted adds nothing."""
        if f.ndim != 2 or g.ndim != 2 or len(f) != len(g):
            raise ValueError(f"expected outputs [B, C] and [B, D], found shapes {f.shape} and {g.shape}")
        if not len(f):
            return
        if not self.count:
            c, d = f.shape[1], g.shape[1]
            self.mean_f, self.mean_g = np.zeros(c), np.zeros(d)
            self.ff, self.gg, self.gf = np.zeros((c, c)), np.zeros((d, d)), np.zeros((d, c))
        s_f, new_f = _about_mean(f, self.mean_f, self.count)
        s_g, new_g = _about_mean(g, self.mean_g, self.count)
        self.ff += s_f.T @ s_f
        self.gg += s_g.T @ s_g
        self.gf += s_g.T @ s_f
        self.count, self.mean_f, self.mean_g = self.count + len(f), new_f, new_g

    def __add__(self, other: "CKAComplement") -> "CKAComplement":
        if not (self.count and other.count):
            whole = self if self.count else other
            arrays = (whole.mean_f, whole.mean_g, whole.ff, whole.gg, whole.gf)
            return CKAComplement(whole.count, *(array.copy() for array in arrays))
        count = self.count + other.count
        f, g = other.mean_f - self.mean_f, other.mean_g - self.mean_g
        weight = self.count * other.count / count
        return CKAComplement(
            count,
            self.mean_f + f * (other.count / count),
            self.mean_g + g * (other.count / count),
            self.ff + other.ff + weight * np.outer(f, f),
            self.gg + other.gg + weight * np.outer(g, g),
            self.gf + other.gf + weight * np.outer(g, f),
        )

    def result(self) -> float:
        """In [0, 1]; NaN if a model gives all samples the same outputs. Raises ResultsError if there are no samples."""
        _require_samples(self.count)
        norms = float(np.linalg.norm(self.ff) * np.linalg.norm(self.gg))
        if norms == 0:
            return float("nan")
        return max(0.0, 1 - float(np.linalg.norm(self.gf)) ** 2 / norms)


def _about_mean(logits: Logits, mean: Numbers, count: int) -> tuple[Numbers, Numbers]:
    """A batch about its own means, [B + 1, C], and the means [C] of it together with the `count` rows before.

    The last row makes the correction for the distance of the means a part of the products, at no cost.
    """
    rows = len(logits)
    about = np.empty((rows + 1, logits.shape[1]))
    np.copyto(about[:rows], logits)
    about[:rows][np.isneginf(logits)] = 0
    own = about[:rows].mean(axis=0)
    about[:rows] -= own
    about[rows] = (own - mean) * sqrt(count * rows / (count + rows))
    return about, mean + (own - mean) * (rows / (count + rows))


@dataclass(slots=True)
class EnsembleAgreement:
    """Whether f(x, (1-alpha) theta_0 + alpha theta_1) is (1-alpha) f(x, theta_0) + alpha f(x, theta_1), at alpha 0.5.

    It is, to rounding, if the models differ in a linear head alone (the paper, section 5.2).

    Attributes:
        agree: samples for which both ensembles predict the same class.
        weights_right, outputs_right: samples on which each is right.
        difference, largest: the largest difference of two logits, and the largest logit.
    """

    agree: int = 0
    weights_right: int = 0
    outputs_right: int = 0
    difference: float = 0.0
    largest: float = 0.0

    def update(self, zeroshot: Logits, finetuned: Logits, weights: Logits, labels: Labels) -> None:
        """Add a batch: logits [B, C] of both models and of the weight-space ensemble, and labels [B]."""
        require_batch(labels, zeroshot, finetuned, weights)
        outputs = output_ensemble(zeroshot, finetuned, 0.5)
        mixed, averaged = predicted(weights), predicted(outputs)
        self.agree += int((mixed == averaged).sum())
        self.weights_right += int((mixed == labels).sum())
        self.outputs_right += int((averaged == labels).sum())
        known = np.isfinite(outputs) & np.isfinite(weights)
        apart = np.subtract(weights, outputs, out=np.zeros_like(outputs), where=known)
        self.difference = max(self.difference, float(np.abs(apart).max(initial=0)))
        self.largest = max(self.largest, float(np.abs(outputs).max(initial=0, where=known)))

    def __add__(self, other: "EnsembleAgreement") -> "EnsembleAgreement":
        return EnsembleAgreement(
            self.agree + other.agree,
            self.weights_right + other.weights_right,
            self.outputs_right + other.outputs_right,
            max(self.difference, other.difference),
            max(self.largest, other.largest),
        )

    def result(self) -> dict[str, float]:
        """Counts, and "farthest": the largest difference relative to the largest logit; rounding makes about 1e-6."""
        counts = {"agree": self.agree, "weights right": self.weights_right, "outputs right": self.outputs_right}
        return counts | {"farthest": self.difference / self.largest if self.largest else self.difference}


@dataclass(slots=True)
class LogitDisagreement:
    """What only logits show of how two models differ; `+` joins what several processes saw.

    Keeps about 24 C^2 bytes for C classes.

    Attributes:
        left_out: indices of samples with NaN or infinite logits, which are in none of the other numbers.
        divergence: Kullback-Leibler's, of g from f.
        cka: of the logits.
        zeroshot, finetuned, ensemble: margins between the two largest logits of each model: the paper's confidence.
        agreement: of the ensembles in weight space and in output space.
    """

    left_out: list[int] = field(default_factory=list)
    divergence: Mean = field(default_factory=Mean)
    cka: CKAComplement = field(default_factory=CKAComplement)
    zeroshot: Mean = field(default_factory=Mean)
    finetuned: Mean = field(default_factory=Mean)
    ensemble: Mean = field(default_factory=Mean)
    agreement: EnsembleAgreement = field(default_factory=EnsembleAgreement)

    def update(self, logits: Sequence[Logits], labels: Labels, indices: Labels) -> None:
        """Add a batch.

        Args:
            logits: float32 or float64 [B, C] of the zero-shot and the fine-tuned model, and of the mixture of weights
                at alpha 0.5 if it is evaluated; -inf in the columns of classes that are never predicted.
            labels: int64 [B].
            indices: of the samples, int64 [B].
        """
        require_batch(labels, *logits)
        rows = sound(*logits)
        self.left_out += indices[~rows].tolist()
        f, g, *mixed = (values[rows] for values in logits)
        self.divergence.update(kl_divergences(f, g))
        self.cka.update(f, g)
        self.zeroshot.update(margins(f))
        self.finetuned.update(margins(g))
        for ensemble in mixed:
            self.ensemble.update(margins(ensemble))
            self.agreement.update(f, g, ensemble, labels[rows])

    def __add__(self, other: "LogitDisagreement") -> "LogitDisagreement":
        joined: list[Any] = [getattr(self, each.name) + getattr(other, each.name) for each in fields(self)]
        return LogitDisagreement(*joined)


def disagreement(
    seen: LogitDisagreement, labels: Labels, zeroshot: Labels, finetuned: Labels, ensemble: Labels | None
) -> dict[str, float]:
    """All measures by name, as results files hold them.

    Args:
        seen: the logits of all samples that could be read.
        labels: int64 [N] of all samples.
        zeroshot: predicted classes, int32 [N]; -1 for samples that could not be read.
        finetuned: likewise.
        ensemble: of the mixture of weights at alpha 0.5; None if it was not evaluated.

    Raises:
        ResultsError: there are no samples, or none with finite logits.
    """
    rows = zeroshot >= 0
    rows[seen.left_out] = False
    labels, f, g = labels[rows], zeroshot[rows], finetuned[rows]
    values: dict[str, float] = {
        "total": _require_samples(len(labels)),
        "left out": len(seen.left_out),
        "prediction diversity": prediction_diversity(f, g, labels),
        "kappa complement": kappa_complement(f, g),
        "kl divergence": max(0.0, seen.divergence.result()),
        "cka complement": seen.cka.result(),
        "zeroshot confidence": seen.zeroshot.result(),
        "finetuned confidence": seen.finetuned.result(),
    }
    if ensemble is not None:
        counts = overrides(f, g, ensemble[rows], labels)
        values |= {f"overrides: {name}": count for name, count in counts.items()}
        values["ensemble confidence"] = seen.ensemble.result()
        values |= {f"agreement: {name}": value for name, value in seen.agreement.result().items()}
    return {name: float(value) for name, value in values.items()}


def _require_samples(count: int) -> int:
    if count == 0:
        raise ResultsError("No image was left to compare predictions on. Check that the data set has readable images.")
    return count

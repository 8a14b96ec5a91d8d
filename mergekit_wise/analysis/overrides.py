"""Which end a mixture follows, how confident the ends are, and whether mixing weights does what mixing outputs does.

Accumulators, as in :mod:`mergekit_wise.analysis.diversity`: batches of logits in, numbers out.
"""

from dataclasses import dataclass

import numpy as np

from mergekit_wise.analysis.diversity import seen
from mergekit_wise.analysis.logits import Labels, Logits, margins, predicted, require_batch


@dataclass(frozen=True, slots=True)
class OverrideCounts:
    """What becomes of the samples on which the ends disagree (the paper, section 5.1).

    Attributes:
        total: samples seen.
        zeroshot: zero-shot overrides: the ends disagree, and the ensemble predicts with the zero-shot model.
        finetuned: zero-shot is overridden: the ensemble predicts with the fine-tuned model.
        neither: the ensemble predicts a third class.
        zeroshot_right, finetuned_right, neither_right: in how many of these the ensemble is right.
    """

    total: int = 0
    zeroshot: int = 0
    finetuned: int = 0
    neither: int = 0
    zeroshot_right: int = 0
    finetuned_right: int = 0
    neither_right: int = 0

    @property
    def disagree(self) -> int:
        """Samples on which the ends predict different classes."""
        return self.zeroshot + self.finetuned + self.neither


@dataclass(slots=True)
class Overrides:
    """Counts of overrides; the ensemble is the mixture of weights at alpha 0.5. Exact in any order."""

    counts: OverrideCounts = OverrideCounts()

    def update(self, zeroshot: Logits, finetuned: Logits, ensemble: Logits, labels: Labels) -> None:
        """Take in a batch: logits [B, C] of the three, and labels [B]."""
        require_batch(labels, zeroshot, finetuned, ensemble)
        first, second, mixed = predicted(zeroshot), predicted(finetuned), predicted(ensemble)
        apart, right = first != second, mixed == labels
        kinds = (apart & (mixed == first), apart & (mixed == second), apart & (mixed != first) & (mixed != second))
        batch = OverrideCounts(
            len(labels), *(int(kind.sum()) for kind in kinds), *(int((kind & right).sum()) for kind in kinds)
        )
        self.counts = _added(self.counts, batch)

    def __add__(self, other: "Overrides") -> "Overrides":
        return Overrides(_added(self.counts, other.counts))

    def result(self) -> OverrideCounts:
        """The counts. Raises ResultsError if nothing was seen."""
        seen(self.counts.total)
        return self.counts


@dataclass(slots=True)
class Confidence:
    """The mean margin between the largest and the second largest unnormalised output of one model."""

    margin: float = 0.0
    total: int = 0

    def update(self, logits: Logits) -> None:
        """Take in a batch: logits [B, C], with the head's scale."""
        require_batch(None, logits)
        self.margin += float(margins(logits).sum())
        self.total += len(logits)

    def __add__(self, other: "Confidence") -> "Confidence":
        return Confidence(self.margin + other.margin, self.total + other.total)

    def result(self) -> float:
        """At least 0. Raises ResultsError if nothing was seen."""
        return self.margin / seen(self.total)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Weight-space against output-space ensemble at one alpha.

    Attributes:
        alpha: of both.
        total: samples seen.
        agree: samples for which both predict the same class.
        weights_right, outputs_right: samples on which each is right.
        farthest: the largest difference of a logit, relative to the largest logit there was; rounding alone makes 1e-6
            or so in float32.
    """

    alpha: float
    total: int
    agree: int
    weights_right: int
    outputs_right: int
    farthest: float


@dataclass(slots=True)
class EnsembleAgreement:
    """Whether f(x, (1-alpha) theta_0 + alpha theta_1) is (1-alpha) f(x, theta_0) + alpha f(x, theta_1).

    It is, to rounding, where the models differ in a linear head alone (the paper, section 5.2). Exact in any order.
    """

    alpha: float = 0.5
    total: int = 0
    agree: int = 0
    weights_right: int = 0
    outputs_right: int = 0
    difference: float = 0.0
    largest: float = 0.0

    def update(self, zeroshot: Logits, finetuned: Logits, weights: Logits, labels: Labels) -> None:
        """Take in a batch: logits [B, C] of the ends and of the weight-space ensemble at `alpha`, and labels [B]."""
        require_batch(labels, zeroshot, finetuned, weights)
        outputs = output_ensemble(zeroshot, finetuned, self.alpha)
        mixed, averaged = predicted(weights), predicted(outputs)
        self.total += len(labels)
        self.agree += int((mixed == averaged).sum())
        self.weights_right += int((mixed == labels).sum())
        self.outputs_right += int((averaged == labels).sum())
        known = np.isfinite(outputs) & np.isfinite(weights)
        apart = np.subtract(weights, outputs, out=np.zeros_like(outputs), where=known)
        self.difference = max(self.difference, float(np.abs(apart).max(initial=0)))
        self.largest = max(self.largest, float(np.abs(outputs).max(initial=0, where=known)))

    def __add__(self, other: "EnsembleAgreement") -> "EnsembleAgreement":
        if self.alpha != other.alpha:
            raise ValueError(f"ensembles at alpha {self.alpha:g} and {other.alpha:g} cannot be counted together")
        return EnsembleAgreement(
            self.alpha,
            self.total + other.total,
            self.agree + other.agree,
            self.weights_right + other.weights_right,
            self.outputs_right + other.outputs_right,
            max(self.difference, other.difference),
            max(self.largest, other.largest),
        )

    def result(self) -> Agreement:
        """Raises ResultsError if nothing was seen."""
        seen(self.total)
        farthest = self.difference / self.largest if self.largest else self.difference
        return Agreement(self.alpha, self.total, self.agree, self.weights_right, self.outputs_right, farthest)


def output_ensemble(zeroshot: Logits, finetuned: Logits, alpha: float) -> Logits:
    """(1 - alpha) f(x, theta_0) + alpha f(x, theta_1) of logits [B, C], in their dtype. Alpha 0 and 1 are the ends."""
    if alpha in (0, 1):
        return finetuned if alpha else zeroshot
    return (1 - alpha) * zeroshot + alpha * finetuned


def _added(a: OverrideCounts, b: OverrideCounts) -> OverrideCounts:
    return OverrideCounts(
        a.total + b.total,
        a.zeroshot + b.zeroshot,
        a.finetuned + b.finetuned,
        a.neither + b.neither,
        a.zeroshot_right + b.zeroshot_right,
        a.finetuned_right + b.finetuned_right,
        a.neither_right + b.neither_right,
    )

"""Everything that the paper says of how zero-shot and fine-tuned model differ on a data set, in one pass.

Knows logits and labels; knows no models and no images. The measures are in diversity.py and overrides.py.
"""

from dataclasses import dataclass, field

from mergekit_wise.analysis.diversity import CKAComplement, KappaComplement, KLDivergence, PredictionDiversity, seen
from mergekit_wise.analysis.logits import Labels, Logits, require_batch, sound
from mergekit_wise.analysis.overrides import Agreement, Confidence, EnsembleAgreement, OverrideCounts, Overrides


@dataclass(frozen=True, slots=True)
class DisagreementReport:
    """The numbers of one data set.

    Attributes:
        total: samples that were compared; `left_out` have NaN or infinite logits and count nowhere.
        prediction_diversity: share of samples on which exactly one of the two is right.
        kappa_complement: Cohen's.
        kl_divergence: of the fine-tuned from the zero-shot model's probabilities, in nats.
        cka_complement: of the logits; NaN where a model says the same of every sample.
        zeroshot_confidence, finetuned_confidence: mean margins, in units of logits.
        overrides, ensemble_confidence, agreement: with the ensemble at alpha 0.5; None where there was none.
    """

    total: int
    left_out: int
    prediction_diversity: float
    kappa_complement: float
    kl_divergence: float
    cka_complement: float
    zeroshot_confidence: float
    finetuned_confidence: float
    overrides: OverrideCounts | None = None
    ensemble_confidence: float | None = None
    agreement: Agreement | None = None


@dataclass(slots=True)
class Disagreement:
    """All measures at once: `update` with batches, `+` to put together what was seen apart, `result`.

    Keeps about 24 C^2 bytes for C classes, and nothing that grows with the number of images.
    """

    left_out: int = 0
    diversity: PredictionDiversity = field(default_factory=PredictionDiversity)
    kappa: KappaComplement = field(default_factory=KappaComplement)
    divergence: KLDivergence = field(default_factory=KLDivergence)
    cka: CKAComplement = field(default_factory=CKAComplement)
    zeroshot: Confidence = field(default_factory=Confidence)
    finetuned: Confidence = field(default_factory=Confidence)
    ensemble: Confidence = field(default_factory=Confidence)
    overrides: Overrides = field(default_factory=Overrides)
    agreement: EnsembleAgreement = field(default_factory=EnsembleAgreement)

    def update(self, zeroshot: Logits, finetuned: Logits, ensemble: Logits | None, labels: Labels) -> None:
        """Take in a batch.

        Args:
            zeroshot: logits, float32 or float64 [B, C], -inf in columns of classes that are never predicted.
            finetuned: likewise.
            ensemble: of the mixture of weights at alpha 0.5, [B, C]; None where that is not evaluated.
            labels: int64 [B].
        """
        models = (zeroshot, finetuned) if ensemble is None else (zeroshot, finetuned, ensemble)
        require_batch(labels, *models)
        rows = sound(*models)
        self.left_out += int((~rows).sum())
        labels, f, g = labels[rows], zeroshot[rows], finetuned[rows]
        self.diversity.update(f, g, labels)
        self.kappa.update(f, g)
        self.divergence.update(f, g)
        self.cka.update(f, g)
        self.zeroshot.update(f)
        self.finetuned.update(g)
        if ensemble is not None:
            mixed = ensemble[rows]
            self.ensemble.update(mixed)
            self.overrides.update(f, g, mixed, labels)
            self.agreement.update(f, g, mixed, labels)

    def __add__(self, other: "Disagreement") -> "Disagreement":
        return Disagreement(
            self.left_out + other.left_out,
            self.diversity + other.diversity,
            self.kappa + other.kappa,
            self.divergence + other.divergence,
            self.cka + other.cka,
            self.zeroshot + other.zeroshot,
            self.finetuned + other.finetuned,
            self.ensemble + other.ensemble,
            self.overrides + other.overrides,
            self.agreement + other.agreement,
        )

    def result(self) -> DisagreementReport:
        """The numbers. Raises ResultsError if no sample was seen, or none without NaN."""
        mixed = self.ensemble.total > 0
        return DisagreementReport(
            seen(self.diversity.total),
            self.left_out,
            self.diversity.result(),
            self.kappa.result(),
            self.divergence.result(),
            self.cka.result(),
            self.zeroshot.result(),
            self.finetuned.result(),
            self.overrides.result() if mixed else None,
            self.ensemble.result() if mixed else None,
            self.agreement.result() if mixed else None,
        )

"""What a sweep measures besides accuracies: how its two models differ, and their output-space ensembles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mergekit_wise.analysis.answers import part_of_metric
from mergekit_wise.analysis.disagreement import LogitDisagreement, disagreement
from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.predictions import Predictions
from mergekit_wise.results import ENSEMBLE, Analysis, setting_of

if TYPE_CHECKING:
    from mergekit_wise.evaluation.engine import Observers

MIDDLE = 0.5
"""Alpha of the mixture that overrides and agreement are about (the paper, section 5)."""


@dataclass(frozen=True, slots=True)
class PairAnalysis:
    """The options of an analysis, and the alphas of all variants by their numbers; 0 and 1 must be among them.

    Attributes:
        alphas: of all variants.
        analyze: whether to measure how the zero-shot and the fine-tuned model differ.
        output_ensemble: whether to evaluate the output-space ensemble at every alpha between 0 and 1.
    """

    alphas: Sequence[float]
    analyze: bool
    output_ensemble: bool

    def __post_init__(self) -> None:
        """Raise UsageError if alpha 0 or 1 is missing."""
        missing = [f"{alpha:g}" for alpha in (0.0, 1.0) if alpha not in self.alphas]
        if missing:
            option = "--analyze" if self.analyze else "--output-ensemble"
            raise UsageError(f"{option} compares the models at alpha 0 and 1: add alpha {' and '.join(missing)}.")

    @property
    def needed(self) -> set[int]:
        """Numbers of the variants whose logits are needed."""
        return {number for number, alpha in enumerate(self.alphas) if alpha in (0.0, 1.0, MIDDLE)}

    @property
    def _ensemble_alphas(self) -> list[float]:
        return [alpha for alpha in self.alphas if 0 < alpha < 1] if self.output_ensemble else []

    def _rows(self, todo: Sequence[int]) -> dict[float, int]:
        """The row of each alpha in the predictions of the variants with the numbers `todo`."""
        return {self.alphas[number]: row for row, number in enumerate(todo)}

    def observers(self, todo: Sequence[int], seen: LogitDisagreement) -> Observers:
        """Observers of one pass by the variants with the numbers `todo`, which add what they see to `seen`."""
        from mergekit_wise.evaluation.engine import Observers, OutputEnsemble

        rows = self._rows(todo)
        ensembles = [OutputEnsemble(rows[0.0], rows[1.0], alpha) for alpha in self._ensemble_alphas]
        if not self.analyze:
            return Observers(ensembles)
        observed = [rows[alpha] for alpha in (0.0, 1.0, MIDDLE) if alpha in rows]
        return Observers(ensembles, observed, seen.update)

    def result(
        self,
        dataset: Dataset,
        todo: Sequence[int],
        drafts: Sequence[Mapping[str, Any]],
        found: Predictions,
        seen: LogitDisagreement,
    ) -> Analysis:
        """The numbers of one pass.

        Args:
            dataset: the images.
            todo: numbers of the variants that were evaluated.
            drafts: the attributes of every variant's record that are not counted.
            found: the predictions of the variants, then of the output-space ensembles.
            seen: what all processes saw.
        """
        rows = self._rows(todo)
        values: dict[str, float] = {}
        if self.analyze:
            middle = found.classes[rows[MIDDLE]] if MIDDLE in rows else None
            values |= disagreement(seen, dataset.labels, found.classes[rows[0.0]], found.classes[rows[1.0]], middle)
        readable = found.readable
        metric = part_of_metric(dataset.metric, readable, len(dataset)) if found.bad else dataset.metric
        for row, alpha in enumerate(self._ensemble_alphas, len(todo)):
            predicted = found.classes[row].astype(np.int64)[readable]
            scored = score(metric, predicted, dataset.labels[readable], len(dataset.classnames))
            values[ensemble_name(alpha)] = scored.value
        return Analysis(**self.identity(drafts), images=len(readable), values=values)

    def identity(self, drafts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """All attributes of the analysis that are known beforehand."""
        zeroshot, finetuned = (drafts[self.alphas.index(alpha)] for alpha in (0.0, 1.0))
        measurement = setting_of(zeroshot)
        options = [self.analyze, self._ensemble_alphas, sorted(self.alphas[number] for number in self.needed)]
        setting = hashlib.sha256(json.dumps([measurement, options]).encode()).hexdigest()[:16]
        same = {key: zeroshot[key] for key in ("model", "suite", "dataset", "title", "role", "data")}
        weights = {"zeroshot": zeroshot["weights"], "finetuned": finetuned["weights"]}
        return {**same, **weights, "setting": setting, "measurement": measurement}


def ensemble_name(alpha: float) -> str:
    """The name of an output-space ensemble's accuracy in results files."""
    return f"{ENSEMBLE}{alpha:g}"

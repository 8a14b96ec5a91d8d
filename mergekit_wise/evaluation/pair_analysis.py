"""What a sweep looks at beside accuracies: how its ends differ, and their output-space ensembles."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import Disagreement, DisagreementReport
from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Predictions, Ranks
from mergekit_wise.evaluation.observers import Observers, OutputEnsemble
from mergekit_wise.results import Analysis

MIDDLE = 0.5
"""The ensemble that overrides and agreement are about (the paper, section 5)."""

Draft = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is asked for, and the alphas of all variants by their numbers; 0 and 1 are among them."""

    alphas: Sequence[float]
    analyze: bool
    output_ensemble: bool

    def __post_init__(self) -> None:
        """Raise UsageError without both ends."""
        missing = [f"{end:g}" for end in (0.0, 1.0) if end not in self.alphas]
        if missing:
            option = "--analyze" if self.analyze else "--output-ensemble"
            raise UsageError(f"{option} compares both ends: add alpha {' and '.join(missing)} to --alphas.")

    @property
    def ends(self) -> tuple[int, int]:
        """Numbers of the zero-shot and the fine-tuned model."""
        return self.alphas.index(0.0), self.alphas.index(1.0)

    @property
    def needed(self) -> set[int]:
        """Numbers of the variants that must see the images."""
        return {number for number, alpha in enumerate(self.alphas) if alpha in (0.0, 1.0, MIDDLE)}

    def over(self, dataset: Dataset, todo: Sequence[int], draft: Sequence[Draft]) -> "Pass":
        """One pass over a data set by the variants `todo`; `draft` is what their records begin with."""
        return Pass(self, dataset, todo, draft, Disagreement())


@dataclass(slots=True)
class Pass:
    """A comparison while images go by."""

    asked: Comparison
    dataset: Dataset
    todo: Sequence[int]
    draft: Sequence[Draft]
    seen: Disagreement

    @property
    def inner(self) -> list[float]:
        """Alphas of the output-space ensembles."""
        return [alpha for alpha in self.asked.alphas if 0 < alpha < 1] if self.asked.output_ensemble else []

    @property
    def beside(self) -> Observers:
        """What the engine is told; numbers are places in `todo`."""
        zeroshot, finetuned = (self.todo.index(end) for end in self.asked.ends)
        blends = [OutputEnsemble(zeroshot, finetuned, alpha) for alpha in self.inner]
        if not self.asked.analyze:
            return Observers(blends)
        middle = [place for place, number in enumerate(self.todo) if self.asked.alphas[number] == MIDDLE]
        return Observers(blends, (zeroshot, finetuned, *middle), self._see)

    def _see(self, logits: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> None:
        self.seen.update(logits[0], logits[1], logits[2] if len(logits) > 2 else None, labels)

    def result(self, found: Predictions, ranks: Ranks) -> Analysis:
        """The numbers, over all ranks."""
        values: dict[str, float] = {}
        if self.asked.analyze:
            values |= flattened(sum(ranks.everyone(self.seen), Disagreement()).result())
        readable = np.array([index for index in range(len(self.dataset)) if index not in found.bad], np.int64)
        labels = self.dataset.labels[readable]
        metric = Metric() if found.bad else self.dataset.metric  # groups count all images
        for row, alpha in enumerate(self.inner, len(self.todo)):
            predicted = found.classes[row].astype(np.int64)
            scored = score(metric, predicted[readable], labels, len(self.dataset.classnames))
            values[ensemble_name(alpha)] = scored.value
        return Analysis(**self.identity, images=len(readable), values=values)

    @property
    def identity(self) -> dict[str, Any]:
        """All attributes of the analysis but what is seen."""
        zeroshot, finetuned = (self.draft[end] for end in self.asked.ends)
        rest = {key: zeroshot[key] for key in ("architecture", "preprocess", "head", "prompts", "precision", "limit")}
        asked = [self.asked.analyze, self.inner, sorted(self.asked.alphas[n] for n in self.asked.needed)]
        setting = hashlib.sha256(json.dumps([rest, asked], sort_keys=True).encode()).hexdigest()[:16]
        same = {key: zeroshot[key] for key in ("model", "suite", "dataset", "title", "role", "data")}
        return {**same, "zeroshot": zeroshot["weights"], "finetuned": finetuned["weights"], "setting": setting}


def ensemble_name(alpha: float) -> str:
    """What the accuracy of an output-space ensemble is called."""
    return f"output-space ensemble at {alpha:g}"


def flattened(report: DisagreementReport) -> dict[str, float]:
    """Numbers by name; parts of parts are joined by a colon, and what was not measured is left out."""
    values: dict[str, float] = {}
    for field in fields(report):
        value = getattr(report, field.name)
        name = field.name.replace("_", " ")
        if value is None:
            continue
        if isinstance(value, (int, float)):
            values[name] = float(value)
        else:
            values |= {
                f"{name}: {part.name.replace('_', ' ')}": float(getattr(value, part.name))
                for part in fields(value)
                if isinstance(getattr(value, part.name), (int, float)) and part.name not in ("alpha", "total")
            }
    return values

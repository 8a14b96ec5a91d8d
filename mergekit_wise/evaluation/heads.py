"""The head that a data set's accuracy is measured with: the checkpoint's own, one from a file, or one of class names.

Knows models and data sets; sets no weights of towers.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.evaluation.answers import choose_columns
from mergekit_wise.models.model import Model
from mergekit_wise.progress import Progress

Setter = Callable[[], None]
Rows = dict[tuple[str, tuple[str, ...]], Tensor]
"""Rows of zero-shot heads, float32 [D], by class name and templates."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Gives every variant of a model the head that a data set needs.

    Attributes:
        model: has its own head, or a text tower.
        name: where heads come from, for records.
        progress: hears of the making of zero-shot heads.
        made: for each variant by its number, what was made of class names; a name is encoded once.
    """

    model: Model
    name: str
    progress: Progress
    made: dict[int, Rows] = field(default_factory=dict)

    def outputs(self, dataset: Dataset) -> int:
        """How many logits the head for a data set has."""
        return self.model.classes if self.model.has_own_head and self.model.classes else len(dataset.classnames)

    def require(self, datasets: Sequence[Dataset]) -> None:
        """Raise ModelError or SuiteError now if a data set has no images, or not the classes that the head has."""
        for dataset in datasets:
            choose_columns(dataset, self.outputs(dataset))

    def prompts(self, dataset: Dataset) -> str:
        """What the number depends on of class names and templates: a digest of them, or nothing."""
        if self.model.has_own_head:
            return ""
        words = json.dumps([dataset.classnames, dataset.templates]).encode()
        return hashlib.sha256(words).hexdigest()[:16]

    def setters(
        self, numbers: Sequence[int], set_weights: Sequence[Callable[[], None]], dataset: Dataset
    ) -> list[Callable[[], None]]:
        """What sets weights and head of the variants with these `numbers`, whose weights `set_weights` set."""
        if self.model.has_own_head:
            return list(set_weights)
        return [self._with_head(*variant, dataset) for variant in zip(numbers, set_weights, strict=True)]

    def _with_head(self, number: int, set_weights: Setter, dataset: Dataset) -> Setter:
        rows = self.made.setdefault(number, {})
        missing = [name for name in dict.fromkeys(dataset.classnames) if (name, dataset.templates) not in rows]
        if missing:
            set_weights()
            made = self.model.zeroshot_head(missing, dataset.templates, self.progress).cpu()
            rows |= {(name, dataset.templates): row for name, row in zip(missing, made, strict=True)}
        head = torch.stack([rows[name, dataset.templates] for name in dataset.classnames])

        def set_both() -> None:
            set_weights()
            self.model.use_head(head)

        return set_both

"""The head for each data set: the checkpoint's own, one from a file, or one built from class names.

Knows models and data sets; sets no weights of towers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mergekit_wise.cache import Cache
from mergekit_wise.datasets.class_names import notes_on_prompts, prompt_names
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.head_columns import HeadColumns, head_columns
from mergekit_wise.evaluation.predictions import column_table
from mergekit_wise.models.model import Model
from mergekit_wise.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

Setter = Callable[[], None]
Rows = dict[tuple[str, tuple[str, ...]], "Tensor"]
"""Rows of zero-shot heads, float32 [D], by class name and templates."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Gives every variant of a model the head that a data set needs.

    Attributes:
        model: has its own head, or a text tower.
        name: of the head in records.
        progress: called while zero-shot heads are built.
        note: called once with each sentence on zero-shot heads: prompts that are cut off, heads that are read.
        cache: keeps zero-shot heads for later runs; None if nothing is kept.
        built: rows of zero-shot heads by the digest of the weights that they depend on, for the variants that have the
            same text tower and the data sets that have the same classes.
    """

    model: Model
    name: str
    progress: Progress
    note: Callable[[str], object] = str
    cache: Cache | None = None
    built: dict[str, Rows] = field(default_factory=dict)
    _towers: dict[int, str] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)

    def outputs(self, dataset: Dataset) -> int:
        """The number of logits of the head for a data set."""
        return self.model.classes if self.model.has_own_head and self.model.classes else len(dataset.classnames)

    def require(self, datasets: Sequence[Dataset]) -> tuple[str, ...]:
        """Notes on how the classes of data sets are read off the head.

        Raises ModelError or SuiteError now if a data set has no images, or classes that the head has not.
        """
        notes: list[str] = []
        for dataset in datasets:
            column_table(dataset, self.outputs(dataset), self.model.class_names)
            found = self._columns(dataset).notes if self.model.has_own_head else notes_on_prompts(dataset.classnames)
            notes += [f"{dataset.title}: {note}" for note in found]
        return tuple(notes)

    def prompts(self, dataset: Dataset) -> str:
        """A digest of the class names and templates that a zero-shot head depends on; else empty."""
        if self.model.has_own_head:
            return ""
        return _digest([prompt_names(dataset.classnames), dataset.templates])

    def columns(self, dataset: Dataset) -> str:
        """A digest of the outputs of the head that stand for each class; empty if each output is a class."""
        chosen = column_table(dataset, self.outputs(dataset), self.model.class_names)
        return "" if chosen is None else _digest(chosen.tolist())

    def _columns(self, dataset: Dataset) -> HeadColumns:
        return head_columns(dataset, self.outputs(dataset), self.model.class_names)

    def setters(self, numbers: Sequence[int], set_weights: Sequence[Setter], dataset: Dataset) -> list[Setter]:
        """Functions that set weights and head, given the variants' `numbers` and functions that set their weights."""
        if self.model.has_own_head:
            return list(set_weights)
        return [self._with_head(*variant, dataset) for variant in zip(numbers, set_weights, strict=True)]

    def forget(self) -> None:
        """Take nothing for granted of the variants, whose numbers will stand for others."""
        self.built.clear()
        self._towers.clear()

    def _with_head(self, number: int, set_weights: Setter, dataset: Dataset) -> Setter:
        import torch

        from mergekit_wise.evaluation.forward import whole_float32, within_memory
        from mergekit_wise.merging.torch_backend import send

        if number not in self._towers:
            set_weights()
            self._towers[number] = self.model.text_digest()
        rows = self.built.setdefault(self._towers[number], {})
        names, templates = tuple(dict.fromkeys(dataset.classnames)), dataset.templates
        if any((name, templates) not in rows for name in names):
            set_weights()
            # All of them, so that classes with the same prompts are noticed.
            digest = self._towers[number]
            full = "The texts of a zero-shot head do not fit into memory beside the model. Use --device cpu."
            with within_memory(full), whole_float32():
                built = self.model.zeroshot_head(
                    names, templates, self.progress, self._note_once, self.cache, digest
                ).cpu()
            rows |= {(name, templates): row for name, row in zip(names, built, strict=True)}
        head = torch.stack([rows[name, templates] for name in dataset.classnames])
        device = next(self.model.module.parameters()).device

        def set_both() -> None:
            set_weights()
            self.model.use_head(send(head, device))

        return set_both

    def _note_once(self, sentence: str) -> None:
        if sentence not in self._noted:
            self._noted.add(sentence)
            self.note(sentence)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

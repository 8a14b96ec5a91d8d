"""From logits to the class that is predicted, and whether the label is among the best five. Knows no images."""

from math import inf

import numpy as np
import torch
from torch import Tensor

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError

TOP = 5
VOCABULARIES = {"imagenet": 1000}
"""How many columns a head over each vocabulary has."""


def choose_columns(dataset: Dataset, outputs: int) -> Tensor | None:
    """Which of a head's `outputs` stand for each class of the data set: int64 [K, M], -1 where a class has fewer.

    None where each output is a class. Raises ModelError if neither the classes nor the vocabulary of the data set are
    as many, SuiteError if there are no images or a label is none of the classes.
    """
    _require_labels(dataset)
    classes, vocabulary = len(dataset.classnames), VOCABULARIES.get(dataset.vocabulary)
    if dataset.columns is not None and outputs == vocabulary:
        widest = max(map(len, dataset.columns))
        rows = [(*columns, *[-1] * (widest - len(columns))) for columns in dataset.columns]
        return torch.tensor(rows, dtype=torch.int64)
    if outputs == classes:
        return None
    wanted = f"{classes}" + (f" (or {vocabulary} for {dataset.vocabulary}'s)" if vocabulary else "")
    raise ModelError(
        f"{dataset.title}: expected a head of {wanted} classes, found one of {outputs}. Evaluate on data of the "
        "classes that the head was made for, or make a head for these: wise zeroshot CHECKPOINT --classes FILE."
    )


def class_logits(logits: Tensor, columns: Tensor | None) -> Tensor:
    """Logits [B, C] of a head -> [B, K] of a data set's classes: the largest of their columns; -inf for none."""
    if columns is None:
        return logits
    best: Tensor = logits[:, columns.clamp(min=0)].masked_fill(columns < 0, -inf).amax(dim=-1)
    return best


def answer(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted class, int32 [B], and whether the label is among the best five, bool [B].

    Ties go to the lower index. Logits that hold NaN or inf, as of a model that overflows, predict -1: nothing.

    Args:
        logits: float [B, K].
        labels: int64 [B].
    """
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = (logits > own).sum(dim=1) + ((logits == own) & lower).sum(dim=1)
    sound = (logits < inf).all(dim=1)
    return logits.argmax(dim=1).masked_fill(~sound, -1).int(), (before < TOP) & sound


def _require_labels(dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise SuiteError(f"{dataset.title}: has no images{_place(dataset)}. Download or unpack it again.")
    wrong = np.flatnonzero((dataset.labels < 0) | (dataset.labels >= len(dataset.classnames)))
    if len(wrong):
        first = int(wrong[0])
        raise SuiteError(
            f"{dataset.title}: {len(wrong)} labels are none of its {len(dataset.classnames)} classes, the first being "
            f"{dataset.labels[first]} of {dataset.sample(first)}{_place(dataset)}. Check the class names."
        )


def _place(dataset: Dataset) -> str:
    return f" in {dataset.location}" if dataset.location else ""

"""The reference restricted to the classes of a shift that has a part of them.

Effective robustness on ImageNet-R, ImageNet-A and ObjectNet is measured against ImageNet's accuracy on their classes
(WiSE-FT, appendix; Taori et al. 2020), with the same columns of the head.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.limit import part

PREFIX = "reference-of-"


def companions(suite: Suite) -> tuple[Dataset, ...]:
    """One for each shift that has other classes than the reference: the reference's images of these, labelled alike."""
    return () if suite.reference is None else tuple(_companions(suite.reference, suite.shifts))


def companion_name(shift: str) -> str:
    """What the companion of the data set `shift` is called in records."""
    return PREFIX + shift


def _companions(reference: Dataset, shifts: tuple[Dataset, ...]) -> Iterator[Dataset]:
    for shift in shifts:
        if shift.columns is None or shift.vocabulary != reference.vocabulary or reference.columns is not None:
            continue
        classes = {column: label for label, columns in enumerate(shift.columns) for column in columns}
        rows = np.flatnonzero(np.isin(reference.labels, list(classes))).astype(np.int64)
        if not len(rows):
            continue
        chosen = part(reference, rows)
        yield replace(
            chosen,
            name=companion_name(shift.name),
            title=f"{reference.title}, {shift.title}'s classes",
            classnames=shift.classnames,
            labels=np.array([classes[label] for label in chosen.labels.tolist()], np.int64),
            columns=shift.columns,
            expected=None,
        )

"""ImageNet-ReaL: ImageNet's validation images with reassessed labels, several of them for some images.

Source: Beyer et al. 2020, "Are we done with ImageNet?" (arXiv 2006.07159); timm ships the labels. A prediction is right
if it is one of an image's labels, and images without any label do not count, as in the authors' code.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergekit_wise.datasets import imagenet
from mergekit_wise.datasets.class_names import imagenet_real_labels
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.subsets import subset
from mergekit_wise.errors import SuiteError

_NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")

_IMAGENET = next(entry for entry in imagenet.ENTRIES if entry.name == "imagenet")


def find_imagenet_real(root: Path) -> Dataset | None:
    """The images of ImageNet under `root`, in whatever layout, with ReaL's labels, found by the names of the files.

    Raises SuiteError if a name is not that of a validation image of ILSVRC 2012, as in tars whose samples are numbered
    otherwise.
    """
    dataset = _IMAGENET.find(root)
    if dataset is None:
        return None
    real = imagenet_real_labels()
    return with_labels(dataset, [real[number] for number in _numbers(dataset, len(real))], sum(map(bool, real)))


def with_labels(dataset: Dataset, real: Sequence[frozenset[int]], expected: int) -> Dataset:
    """The images of `dataset` that have labels in `real`; the label of ImageNet comes first where it is among them."""
    rows = np.array([row for row, labels in enumerate(real) if labels], dtype=np.int64)
    if not len(rows):
        raise SuiteError(f"{dataset.location}: expected images with labels of ImageNet-ReaL, found none.")
    old = dataset.labels.tolist()
    return replace(
        subset(dataset, rows),
        name=ENTRIES[0].name,
        title=ENTRIES[0].title,
        labels=np.array([old[row] if old[row] in real[row] else min(real[row]) for row in rows], dtype=np.int64),
        metric=Metric("top-1", accepted=tuple(real[row] for row in rows)),
        expected=expected,
    )


def _numbers(dataset: Dataset, count: int) -> list[int]:
    """The place of each image among the validation images, from 0."""
    found = [_NUMBERED.search(dataset.sample(index)) for index in range(len(dataset))]
    numbers = [int(match[1]) - 1 if match else -1 for match in found]
    for index, number in enumerate(numbers):
        if not 0 <= number < count:
            raise SuiteError(
                f"{dataset.sample(index)}: ImageNet-ReaL's labels go by the names of ImageNet's files, and this name "
                f"does not hold ILSVRC2012_val_ and a number up to {count}. Keep the validation images under their own "
                "names in imagenet/val/."
            )
    return numbers


ENTRIES = (
    Entry(
        "imagenet-real",
        "ImageNet-ReaL",
        find_imagenet_real,
        _IMAGENET.places,
        46_837,
        "ImageNet's validation images under their own names, such as ILSVRC2012_val_00000001.JPEG, wherever "
        "'imagenet' is looked for. The labels come with timm.",
    ),
)

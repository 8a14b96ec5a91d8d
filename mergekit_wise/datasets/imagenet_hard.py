"""ImageNet-Hard: images of ImageNet and its variants that models get wrong at any zoom; several labels for some.

Source: Taesiri et al. 2023 (arXiv 2304.05538), as parquet files on the Hugging Face hub. As in the authors' evaluation,
a prediction is right if it is one of an image's labels, which are classes of ImageNet's 1000.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import Found
from mergekit_wise.datasets.parquet import data_files, label_lists
from mergekit_wise.errors import SuiteError

IMAGES = 10_980
_FOLDERS = ("imagenet-hard", "imagenet_hard", "ImageNet-Hard", "taesiri/imagenet-hard")


def find_imagenet_hard(root: Path) -> Dataset | None:
    """The rows of the parquet files. Raises SuiteError if pyarrow is missing, or a file or a label is damaged."""
    place = next((root / place for place in _FOLDERS if data_files(root / place)), None)
    if place is None:
        return None
    images, labels = label_lists(data_files(place), place, "label")
    accepted = tuple(_classes(some, images.sample(index)) for index, some in enumerate(labels))
    found = Found(
        np.array([some[0] for some in labels], np.int64), images.image, images.sample, images.size, str(place)
    )
    dataset = found.dataset(
        "imagenet-hard",
        "ImageNet-Hard",
        imagenet_classnames(),
        imagenet_templates(),
        IMAGES,
        vocabulary=VOCABULARY,
        metric=Metric("top-1", accepted=accepted),
    )
    return replace(dataset, expected=None)


def _classes(labels: Sequence[object], where: str) -> frozenset[int]:
    classes = frozenset(label for label in labels if isinstance(label, int) and 0 <= label < 1000)
    if not classes or len(classes) < len(set(labels)):
        raise SuiteError(f"{where}: expected labels from 0 to 999, found {str(labels)[:80]}. Download it again.")
    return classes


ENTRIES = (
    Entry(
        "imagenet-hard",
        "ImageNet-Hard",
        find_imagenet_hard,
        _FOLDERS,
        IMAGES,
        "The parquet files of https://huggingface.co/datasets/taesiri/imagenet-hard (its folder data/) in "
        "imagenet-hard/: hf download taesiri/imagenet-hard --repo-type dataset --local-dir ROOT/imagenet-hard.",
        verified=False,
    ),
)

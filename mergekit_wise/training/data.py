"""The training set: a data set by name or by folder."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets import digits, glyphs
from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.subsets import with_names
from mergekit_wise.errors import SuiteError
from mergekit_wise.options import FinetuneOptions


def open_training_data(request: FinetuneOptions) -> tuple[Dataset, tuple[str, ...]]:
    """Open the training set; return it and notes on it. Raises SuiteError."""
    name = str(request.train)
    if name == "digits":
        notes: list[str] = []
        names = None if request.classnames is None else read_classnames(request.classnames, notes.append)
        prompts = None if request.templates is None else read_templates(request.templates, notes.append)
        return with_names(_digits(), names, prompts), tuple(notes)
    suite = open_suite(name, request.data, strict=True, classnames=request.classnames, templates=request.templates)
    if len(suite.datasets) != 1:
        listed = ", ".join(dataset.name for dataset in suite.datasets)
        raise SuiteError(f"--train {name}: expected one data set, found {len(suite.datasets)}: {listed}.")
    (dataset,) = suite.datasets
    if name not in ENTRIES:
        return dataset, dataset.titled_notes
    says_little = f"{name} is an evaluation set; after training on it, accuracy on it says little"
    return dataset, (*dataset.titled_notes, says_little)


def _digits() -> Dataset:
    part = digits.train_images()
    images = _Grey(part.pixels)
    return Dataset(
        "digits-train", "Digits, training images", glyphs.CLASSNAMES, part.labels, images.image, location="built in"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Grey:
    """Grey images, uint8 [N, H, W], returned as RGB."""

    pixels: NDArray[np.uint8]

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

"""The images that a model learns from: a data set by name or place, and labels as the head counts them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets import digits
from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.glyphs import CLASSNAMES
from mergekit_wise.datasets.subsets import with_names
from mergekit_wise.errors import SuiteError
from mergekit_wise.options import FinetuneOptions


def open_training_data(request: FinetuneOptions) -> tuple[Dataset, tuple[str, ...]]:
    """The data set that was asked for, and remarks on it. Raises SuiteError."""
    name = str(request.train)
    if name == "digits":
        names = None if request.classnames is None else read_classnames(request.classnames)
        prompts = None if request.templates is None else read_templates(request.templates)
        return with_names(_digits(), names, prompts), ()
    suite = open_suite(name, request.data, strict=True, classnames=request.classnames, templates=request.templates)
    if len(suite.datasets) != 1:
        listed = ", ".join(dataset.name for dataset in suite.datasets)
        raise SuiteError(f"--train {name}: expected one data set, found {len(suite.datasets)}: {listed}.")
    if name not in ENTRIES:
        return suite.datasets[0], ()
    remark = f"{name}: these are the images that accuracy is measured on; after this, accuracy on them says little"
    return suite.datasets[0], (remark,)


def _digits() -> Dataset:
    part = digits.train_images()
    images = _Grey(part.pixels)
    return Dataset("digits-train", "Digits to learn from", CLASSNAMES, part.labels, images.image, location="built in")


@dataclass(frozen=True, slots=True, eq=False)
class _Grey:
    """Grey images, uint8 [N, H, W]."""

    pixels: NDArray[np.uint8]

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")


def place_of(sample: str) -> Path | None:
    """The file that a sample is, or is in; None where it is in none."""
    for candidate in (sample, sample.rpartition(":")[0]):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None

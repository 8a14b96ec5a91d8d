"""A single image file as images without classes. Knows no model."""

from pathlib import Path

import numpy as np

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.folders import FolderImages, as_text
from mergekit_wise.datasets.image_formats import EXTENSIONS, HEAD_BYTES, ending_of, is_image
from mergekit_wise.errors import SuiteError


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by the ending of its name, or else by its first bytes.

    Raises SuiteError if it cannot be read.
    """
    if not path.is_file():
        return False
    if path.name.lower().endswith(EXTENSIONS):
        return True
    try:
        with path.open("rb") as file:
            return is_image(file.read(HEAD_BYTES), ending_of(path.name))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error


def open_image_file(path: Path) -> Dataset:
    """The only image, with the label 0 and without classes."""
    files, name = FolderImages(str(path.parent), (path.name,)), as_text(path.name)
    labels = np.zeros(1, np.int64)
    return Dataset(name, name, (), labels, files.image, sample=files.sample, size=files.size, location=str(path.parent))

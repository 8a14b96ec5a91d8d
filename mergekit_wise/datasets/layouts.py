"""A data set in class folders or in tars, whichever is there: the two become one thing.

Knows where to look and how to number classes; knows nothing of any one data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.datasets.webdataset import has_tars, open_tars
from mergekit_wise.errors import SuiteError


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Images with labels, wherever they lie; `classnames` only where a file beside tars tells them.

    `image`, `sample` and `size` are as :class:`Dataset` has them, `labels` are int64 [N].
    """

    labels: NDArray[np.int64]
    image: Callable[[int], Image.Image]
    sample: Callable[[int], str]
    size: Callable[[int], int]
    location: str
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None


def open_folders(root: Path, label_of: Mapping[str, int], what: str, border: int = 0) -> Found:
    """Images in class folders, every folder's label told by `label_of`.

    Raises SuiteError, saying that folders are `what`, if there is one that `label_of` does not know.
    """
    folders = class_folders(root)
    strangers = [name for name in folders if name not in label_of]
    if strangers or not folders:
        shown = ", ".join(map(repr, strangers[:3]))
        found = f"{len(strangers)} others among {len(folders)}: {shown}" if strangers else "no folder"
        raise SuiteError(f"{root}: expected class folders named {what}; found {found}.")
    images, labels = list_images(root, {name: label_of[name] for name in folders}, border)
    return Found(labels, images.image, images.sample, images.size, str(root))


def open_shards(root: Path, classes: int, border: int = 0) -> Found:
    """Images in tars; SuiteError if a label is not below `classes`."""
    tars = open_tars(root, border)
    require_labels(tars.labels, classes, str(root))
    images = tars.images
    return Found(tars.labels, images.image, images.sample, images.size, str(root), tars.classnames, tars.templates)


def require_labels(labels: NDArray[np.int64], classes: int, where: str) -> None:
    """Raise SuiteError unless all labels are from 0 up to `classes`."""
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise SuiteError(
            f"{where}: expected labels from 0 to {classes - 1}, found them from {labels.min()} to {labels.max()}."
        )


def find_layout(
    root: Path,
    folders: Sequence[str],
    tars: Sequence[str],
    known: Callable[[str], bool],
    loose: Sequence[str] = (),
) -> tuple[Literal["folders", "tars"], Path] | None:
    """The first of `folders` under `root` with a class folder that is `known`, else the first of `tars` with tars.

    Where neither is, but one of `folders` has other folders in it, that one: whoever opens it says what was expected.
    Places that are `loose` have names that might mean anything, and count only with a known class folder.
    """
    there = [root / place for place in (*folders, *loose) if (root / place).is_dir()]
    listed = {place: class_folders(place) for place in there}
    for place, names in listed.items():
        if any(map(known, names)):
            return "folders", place
    for name in tars:
        if has_tars(root / name):
            return "tars", root / name
    # One place may lie in another: imagenet-sketch/sketch.
    strange = (place for place in there if any(place / name not in there for name in listed[place]))
    return next((("folders", place) for place in strange if place not in {root / name for name in loose}), None)

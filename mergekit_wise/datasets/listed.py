"""Images that a list names, as far as they are there. Knows nothing of what the list is."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.folders import FolderImages
from mergekit_wise.datasets.layouts import Found, require_labels
from mergekit_wise.errors import SuiteError


def open_list(
    root: Path, paths: Sequence[str], labels: NDArray[np.int64], classes: int
) -> tuple[Found, NDArray[np.int64]]:
    """The images at `paths`, relative to `root`, with their `labels`; and which of the list they are, int64 [N].

    What is not there is left out, so that it is missing in the count. Raises SuiteError if nothing is there, or if a
    label is not below `classes`.
    """
    require_labels(labels, classes, str(root))
    there = present(root, paths)
    rows = np.array([row for row, path in enumerate(paths) if path in there], dtype=np.int64)
    if not len(rows):
        example = f", {paths[0]} for one" if paths else ""
        raise SuiteError(f"{root}: expected {len(paths):,} images{example}; found none of them. Unpack them there.")
    images = FolderImages(str(root), tuple(paths[row] for row in rows))
    return Found(labels[rows], images.image, images.sample, images.size, str(root)), rows


def present(root: Path, paths: Sequence[str]) -> frozenset[str]:
    """Those of `paths`, relative to `root`, that are files: each folder is listed once."""
    folders = {path.rpartition("/")[0] for path in paths}
    there: set[str] = set()
    for folder in folders:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                there |= {f"{folder}/{e.name}" if folder else e.name for e in entries if not e.is_dir()}
    return frozenset(there.intersection(paths))


def number(names: Sequence[str]) -> dict[str, int]:
    """The place of each name: labels by class name."""
    return {name: place for place, name in enumerate(names)}


def first_folder(root: Path, places: Sequence[str], *needed: str) -> Path | None:
    """The first of `places` under `root` that has everything that is `needed`, None where none has."""
    return next((root / p for p in places if all((root / p / name).exists() for name in needed)), None)


def read_lines(path: Path) -> list[str]:
    """The lines of a list that came with a data set, empty ones left out. Raises SuiteError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: expected a list in UTF-8, one entry a line: {error}. Download it again.") from error
    return [line.strip() for line in lines if line.strip()]

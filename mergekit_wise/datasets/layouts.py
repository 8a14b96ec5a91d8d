"""Data sets in the layouts that downloads have: class folders, tars, or files that list the images.

Whatever the layout, the result is a `Found`: labelled images, without the name or the metric of a data set.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.folders import FolderImages, class_folders, list_images
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.datasets.webdataset import has_tars, open_tars
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Labelled images of any layout.

    `labels` are int64 [N]; `image`, `sample` and `size` are as in :class:`Dataset`; `classnames` and `templates` are
    None unless a file next to the images lists them; `notes` are as in :class:`Dataset`.
    """

    labels: NDArray[np.int64]
    image: Callable[[int], Image.Image]
    sample: Callable[[int], str]
    size: Callable[[int], int]
    location: str
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def dataset(
        self,
        name: str,
        title: str,
        classnames: tuple[str, ...],
        templates: tuple[str, ...],
        expected: int,
        columns: tuple[tuple[int, ...], ...] | None = None,
        vocabulary: str = "",
        metric: Metric | None = None,
    ) -> Dataset:
        """The images as a data set; the arguments are described at :class:`Dataset`."""
        return Dataset(
            name,
            title,
            classnames,
            self.labels,
            self.image,
            templates=templates,
            columns=columns,
            vocabulary=vocabulary,
            metric=metric or Metric(),
            sample=self.sample,
            expected=expected,
            location=self.location,
            size=self.size,
            notes=self.notes,
        )


def open_folders(root: Path, label_of: Mapping[str, int], expected: str, border: int = 0) -> Found:
    """Images in class folders, labelled by `label_of`; `border` pixels are cropped on each side.

    Raises SuiteError if there is no folder, or one that `label_of` lacks; the message says that class folders are named
    as `expected` describes.
    """
    folders = class_folders(root)
    unknown = [name for name in folders if name not in label_of]
    if unknown or not folders:
        found = (
            f"{plural(len(unknown), 'other folder')} among {len(folders)}: {listed(map(repr, unknown), 3)}"
            if unknown
            else "no folder"
        )
        raise SuiteError(f"{root}: expected class folders named {expected}; found {found}.")
    images, labels = list_images(root, {name: label_of[name] for name in folders}, border)
    return Found(labels, images.image, images.sample, images.size, str(root), notes=images.notes)


def open_shards(root: Path, classes: int, border: int = 0, part: str = "test") -> Found:
    """Images in tars. Raises SuiteError if a label is not below `classes`."""
    tars = open_tars(root, border, part)
    require_labels(tars.labels, classes, str(root))
    images = tars.images
    return Found(
        tars.labels, images.image, images.sample, images.size, str(root), tars.classnames, tars.templates, tars.notes
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """The images of several data sets, one after the other; `starts` are the numbers of their first images, int64."""

    parts: tuple[Found, ...]
    starts: NDArray[np.int64]

    def image(self, index: int) -> Image.Image:
        part, row = self._at(index)
        return part.image(row)

    def sample(self, index: int) -> str:
        part, row = self._at(index)
        return part.sample(row)

    def size(self, index: int) -> int:
        part, row = self._at(index)
        return part.size(row)

    def _at(self, index: int) -> tuple[Found, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[number], index - int(self.starts[number])


def joined(parts: Sequence[Found], location: str) -> Found:
    """The images of all `parts`, one after the other; class names, templates and notes are those of the first."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.labels) for part in parts[:-1])])
    images = _Joined(tuple(parts), starts.astype(np.int64))
    labels = np.concatenate([part.labels for part in parts])
    first = parts[0]
    return Found(
        labels, images.image, images.sample, images.size, location, first.classnames, first.templates, first.notes
    )


def open_list(
    root: Path, paths: Sequence[str], labels: NDArray[np.int64], classes: int
) -> tuple[Found, NDArray[np.int64]]:
    """The images at `paths`, relative to `root`, with their `labels`; and their indices in the list, int64 [N].

    Images that do not exist are left out, and a note names them. Raises SuiteError if none exists, or if a label is not
    below `classes`.
    """
    require_labels(labels, classes, str(root))
    existing = existing_files(root, paths)
    rows = np.array([row for row, path in enumerate(paths) if path in existing], dtype=np.int64)
    if not len(rows):
        example = f" such as {paths[0]}" if paths else ""
        where = root if root.parts else "the current folder"
        raise SuiteError(
            f"{where}: expected {plural(len(paths), 'image')}{example}; found none. Unpack them there, or correct the "
            "paths in the list."
        )
    images = FolderImages(str(root), tuple(paths[row] for row in rows))
    absent = [path for path in paths if path not in existing]
    notes = (f"{len(absent):,} of {plural(len(paths), 'listed image')} missing: {listed(absent, 3)}",) if absent else ()
    return Found(labels[rows], images.image, images.sample, images.size, str(root), notes=notes), rows


def existing_files(root: Path, paths: Sequence[str]) -> frozenset[str]:
    """Those of `paths`, relative to `root`, that are files. Each folder is listed once."""
    files: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in paths}:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                files |= {f"{folder}/{e.name}" if folder else e.name for e in entries if e.is_file()}
    return frozenset(files.intersection(paths))


def require_labels(labels: NDArray[np.int64], classes: int, where: str) -> None:
    """Raise SuiteError, naming `where`, unless all labels are at least 0 and below `classes`."""
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise SuiteError(
            f"{where}: expected labels from 0 to {classes - 1}, found them from {labels.min()} to {labels.max()}."
        )


def find_layout(
    root: Path,
    folders: Sequence[str],
    tars: Sequence[str],
    known: Callable[[str], bool],
    ambiguous: Sequence[str] = (),
) -> tuple[Literal["folders", "tars"], Path] | None:
    """The first of `folders` under `root` with a class folder that is `known`, else the first of `tars` with tars.

    If there is neither, the first of `folders` that has any other folders in it, so that opening it reports the
    problem. Folders with `ambiguous` names, which other data sets may have, count only with a known class folder.
    """
    candidates = [root / place for place in (*folders, *ambiguous) if (root / place).is_dir()]
    classes = {place: class_folders(place) for place in candidates}
    for place, names in classes.items():
        if any(map(known, names)):
            return "folders", place
    for name in tars:
        if has_tars(root / name):
            return "tars", root / name
    for place, names in classes.items():
        # One candidate may lie in another, such as imagenet-sketch/sketch.
        if place not in {root / name for name in ambiguous} and any(place / name not in classes for name in names):
            return "folders", place
    return None


def first_folder(root: Path, places: Sequence[str], *needed: str) -> Path | None:
    """The first of `places` under `root` that has all of the files `needed`; None if none has."""
    return next((root / p for p in places if all((root / p / name).exists() for name in needed)), None)


def positions(names: Sequence[str]) -> dict[str, int]:
    """The position of each name in the sequence: labels by class name."""
    return {name: position for position, name in enumerate(names)}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty lines and surrounding blanks. Raises SuiteError if it cannot be read."""
    refuse_web_page(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(
            f"{path}: expected a list in UTF-8, one entry per line: {error}. Download it again."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises SuiteError if the file is missing, damaged, or holds something else."""
    refuse_web_page(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: expected a JSON object: {error}. Unpack the download again.") from error
    if not isinstance(value, dict):
        raise SuiteError(f"{path}: expected a JSON object, found a {type(value).__name__}. Unpack the download again.")
    return value

"""Images in class folders, in the order of torchvision's ImageFolder."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.decoding import EXTENSIONS, decode
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural


@dataclass(frozen=True, slots=True)
class FolderImages:
    """Image files by index: `paths` are relative to `root`; `border` pixels are cropped on each side."""

    root: str
    paths: tuple[str, ...]
    border: int = 0

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. Raises SuiteError, naming the file, if it cannot be read or decoded."""
        path = self.sample(index)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
        return decode(data, path, self.border)

    def sample(self, index: int) -> str:
        """The path of image `index`."""
        return f"{self.root}{os.sep}{self.paths[index]}"

    def size(self, index: int) -> int:
        """The size of the file in bytes."""
        try:
            return os.stat(self.sample(index)).st_size
        except OSError as error:
            raise SuiteError(f"{self.sample(index)}: cannot be read: {error.strerror}.") from error


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in `root`, sorted as strings, without hidden folders."""
    try:
        with os.scandir(root) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    except OSError as error:
        raise SuiteError(f"{root}: cannot be listed: {error.strerror}.") from error


def list_images(root: Path, label_of: Mapping[str, int], border: int = 0) -> tuple[FolderImages, NDArray[np.int64]]:
    """The images in the folders that are keys of `label_of`, and their labels, int64 [N].

    Folders are in the order of their names as strings; files below them, at any depth, are in ImageFolder's order. A
    folder that does not exist counts as empty. Raises SuiteError if there is no image at all.
    """
    paths: list[str] = []
    labels: list[int] = []
    for folder in sorted(label_of):
        found = list(_images_below(root, folder))
        paths += found
        labels += [label_of[folder]] * len(found)
    if not paths:
        raise SuiteError(
            f"{root}: expected images ({' '.join(EXTENSIONS[:4])} ...) in class folders, found none "
            f"in {plural(len(label_of), 'folder')} such as {next(iter(sorted(label_of)), 'none')!r}."
        )
    return FolderImages(str(root), tuple(paths), border), np.array(labels, dtype=np.int64)


def _images_below(root: Path, folder: str) -> Iterator[str]:
    start = len(str(root)) + 1
    for parent, _, files in sorted(os.walk(root / folder, followlinks=True)):
        for name in sorted(files):
            # macOS creates files like "._name.jpg" when it unpacks an archive.
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield os.path.join(parent, name)[start:]

"""The lists of test images that came with Cars, DTD, SUN397 and Food-101, read as torchvision reads them.

Knows nothing of where data sets are looked for, and opens no image.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.listed import number, read_lines
from mergekit_wise.errors import SuiteError

SUN397_IMAGES = 108_754
SUN397_TEST = 19_850

# What scipy's reader raises on damaged files, beside an error of its own.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, NotImplementedError, zlib.error)


@dataclass(frozen=True, slots=True)
class Listing:
    """Images below `folder` with their labels, int64 [N]; `expected` is how many the complete list has."""

    folder: Path
    paths: list[str]
    labels: NDArray[np.int64]
    classnames: tuple[str, ...]
    expected: int


def read_cars(place: Path) -> Listing:
    """The test part: ``cars_test_annos_withlabels.mat`` counts classes from 1, ``devkit/cars_meta.mat`` names them."""
    annotations = _matlab(place / "cars_test_annos_withlabels.mat", "annotations")
    names = _matlab(place / "devkit" / "cars_meta.mat", "class_names")
    try:
        paths = [str(name) for name in np.atleast_1d(annotations["fname"])]
        labels = np.array([int(number) - 1 for number in np.atleast_1d(annotations["class"])], dtype=np.int64)
    except (ValueError, IndexError, TypeError) as error:
        raise SuiteError(
            f"{place}/cars_test_annos_withlabels.mat: expected annotations with 'fname' and 'class': {error}. "
            "Download it again."
        ) from error
    return Listing(place / "cars_test", paths, labels, tuple(map(str, np.atleast_1d(names))), 8041)


def _matlab(path: Path, variable: str) -> NDArray[np.void]:
    from scipy.io import loadmat  # 0.2 s, which only this data set should pay
    from scipy.io.matlab import MatReadError

    try:
        found: NDArray[np.void] = loadmat(path, squeeze_me=True, variable_names=[variable])[variable]
    except (*_DAMAGE, MatReadError) as error:
        raise SuiteError(f"{path}: expected a MATLAB file with {variable!r}: {error}. Download it again.") from error
    return found


def read_dtd(place: Path) -> Listing:
    """The test part of the first of the ten partitions, as torchvision takes: ``labels/test1.txt``."""
    paths = read_lines(place / "labels" / "test1.txt")
    return _by_folder(place / "images", paths, 1880)


def read_food101(place: Path) -> Listing:
    """The test part: ``meta/test.txt`` with lines such as ``apple_pie/1011328``."""
    paths = [f"{line}.jpg" for line in read_lines(place / "meta" / "test.txt")]
    return _by_folder(place / "images", paths, 25_250)


def _by_folder(folder: Path, paths: list[str], expected: int) -> Listing:
    """Classes are folders, in the order of their names; in prompts a name has no underscores."""
    classes = [path.rpartition("/")[0] for path in paths]
    names = sorted(set(classes))
    place = number(names)
    labels = np.array([place[name] for name in classes], dtype=np.int64)
    return Listing(folder, paths, labels, tuple(name.replace("_", " ") for name in names), expected)


def read_sun397(place: Path) -> Listing:
    """The first test partition where its list lies beside the images, else all images.

    ``ClassName.txt`` has the classes in order, as ``/b/bedroom`` or ``/c/church/indoor``.
    """
    names = [line[3:] for line in read_lines(place / "ClassName.txt")]
    split = _sun397_split(place)
    if split is None:
        paths = sorted(path.relative_to(place).as_posix() for path in place.rglob("sun_*.jpg"))
    else:
        paths = [line.lstrip("/") for line in read_lines(split)]
    classes = ["/".join(path.split("/")[1:-1]) for path in paths]
    place_of = number(names)
    if strangers := set(classes) - set(names):
        raise SuiteError(f"{place}: {len(strangers)} folders are not in ClassName.txt: {min(strangers)!r} for one.")
    labels = np.array([place_of[name] for name in classes], dtype=np.int64)
    expected = SUN397_IMAGES if split is None else SUN397_TEST
    return Listing(place, paths, labels, tuple(_scene(name) for name in names), expected)


def _sun397_split(place: Path) -> Path | None:
    folders = (place, place / "Partitions", place / "partitions", place.parent / "Partitions", place.parent)
    return next((folder / "Testing_01.txt" for folder in folders if (folder / "Testing_01.txt").exists()), None)


def _scene(name: str) -> str:
    """``church/indoor`` as a prompt says it, and as CLIP's list has it: ``church indoor``."""
    return name.replace("/", " ").replace("_", " ")

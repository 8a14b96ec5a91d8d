"""Cars, DTD, SUN397 and Food-101: the paper's data sets for transfer (Table 2) besides ImageNet and CIFAR.

Sources: Krause et al. 2013; Cimpoi et al. 2014; Xiao et al. 2010; Bossard et al. 2014. The layouts and the labels are
those of torchvision, the prompts those of CLIP (github.com/openai/CLIP, data/prompts.md).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.layouts import find_layout, first_folder, open_list, open_shards, positions, read_lines
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.datasets.webdataset import has_tars
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed

_CARS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "i love my {}!",
    "a photo of my dirty {}.",
    "a photo of my clean {}.",
    "a photo of my new {}.",
    "a photo of my old {}.",
)
_DTD = tuple(
    f"a photo of {article} {{}} {noun}."
    for article in ("a", "the")
    for noun in ("texture", "pattern", "thing", "object")
)
_SUN397 = ("a photo of a {}.", "a photo of the {}.")
_FOOD101 = ("a photo of {}, a type of food.",)


SUN397_IMAGES = 108_754
SUN397_TEST = 19_850
"""The number of images of the first partition, in both of its parts."""

# What scipy's reader raises on damaged files, besides an error of its own.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, NotImplementedError, zlib.error)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The paths of images below `folder`, their labels, int64 [N], and the `expected` size of the complete list."""

    folder: Path
    paths: list[str]
    labels: NDArray[np.int64]
    classnames: tuple[str, ...]
    expected: int


def _read_cars(place: Path, part: str) -> _Listing:
    """Classes are numbered from 1; ``devkit/cars_meta.mat`` names them."""
    test = ("cars_test_annos_withlabels.mat", "cars_test", 8041)
    file, folder, expected = ("devkit/cars_train_annos.mat", "cars_train", 8144) if part == "train" else test
    annotations = _matlab(place / file, "annotations")
    names = _matlab(place / "devkit" / "cars_meta.mat", "class_names")
    try:
        paths = [str(name) for name in np.atleast_1d(annotations["fname"])]
        labels = np.array([int(number) - 1 for number in np.atleast_1d(annotations["class"])], dtype=np.int64)
    except (ValueError, IndexError, TypeError) as error:
        raise SuiteError(
            f"{place / file}: expected annotations with 'fname' and 'class': {error}. Download it again."
        ) from error
    return _Listing(place / folder, paths, labels, tuple(map(str, np.atleast_1d(names))), expected)


def _matlab(path: Path, variable: str) -> NDArray[np.void]:
    from scipy.io import loadmat  # takes 0.2 s, and only this data set needs it
    from scipy.io.matlab import MatReadError

    refuse_web_page(path)
    try:
        found: NDArray[np.void] = loadmat(path, squeeze_me=True, variable_names=[variable])[variable]
    except (*_DAMAGE, MatReadError) as error:
        raise SuiteError(f"{path}: expected a MATLAB file with {variable!r}: {error}. Download it again.") from error
    return found


def _read_dtd(place: Path, part: str) -> _Listing:
    """A part of the first of the ten partitions, torchvision's default: ``labels/test1.txt``."""
    paths = read_lines(place / "labels" / f"{part}1.txt")
    return _by_folder(place / "images", paths, 1880)


def _read_food101(place: Path, part: str) -> _Listing:
    """``meta/test.txt`` has lines such as ``apple_pie/1011328``."""
    paths = [f"{line}.jpg" for line in read_lines(place / "meta" / f"{part}.txt")]
    return _by_folder(place / "images", paths, 75_750 if part == "train" else 25_250)


def _by_folder(folder: Path, paths: list[str], expected: int) -> _Listing:
    """Classes are the folders in the order of their names; class names have blanks for underscores."""
    classes = [path.rpartition("/")[0] for path in paths]
    names = sorted(set(classes))
    label_of = positions(names)
    labels = np.array([label_of[name] for name in classes], dtype=np.int64)
    return _Listing(folder, paths, labels, tuple(name.replace("_", " ") for name in names), expected)


def _read_sun397(place: Path, part: str) -> _Listing:
    """The first partition if its list lies next to the images; without the list of the test part, all images.

    ``ClassName.txt`` lists the classes in order: ``/b/bedroom``, ``/c/church/indoor``.
    """
    names = [line[3:] for line in read_lines(place / "ClassName.txt")]
    split = _sun397_split(place, part)
    if split is None:
        paths = sorted(path.relative_to(place).as_posix() for path in place.rglob("sun_*.jpg"))
    else:
        paths = [line.lstrip("/") for line in read_lines(split)]
    classes = ["/".join(path.split("/")[1:-1]) for path in paths]
    label_of = positions(names)
    if unknown := sorted(set(classes) - set(names)):
        raise SuiteError(f"{place}: found folders that are not in ClassName.txt: {listed(map(repr, unknown), 3)}.")
    labels = np.array([label_of[name] for name in classes], dtype=np.int64)
    expected = SUN397_IMAGES if split is None else SUN397_TEST
    return _Listing(place, paths, labels, tuple(_scene(name) for name in names), expected)


def _sun397_split(place: Path, part: str) -> Path | None:
    name = "Training_01.txt" if part == "train" else "Testing_01.txt"
    folders = (place, place / "Partitions", place / "partitions", place.parent / "Partitions", place.parent)
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def _scene(name: str) -> str:
    """``church/indoor`` as in CLIP's list of class names: ``church indoor``."""
    return name.replace("/", " ").replace("_", " ")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of these data sets; `needed` are the files that its folder must have, and `read` reads its lists.

    `train` are those that it must have for the training part.
    """

    name: str
    title: str
    classes: int
    expected: int
    templates: tuple[str, ...]
    folders: tuple[str, ...]
    needed: tuple[str, ...]
    train: tuple[str, ...]
    read: Callable[[Path, str], _Listing]
    tars: tuple[str, ...]
    hint: str

    @property
    def tar_places(self) -> tuple[str, ...]:
        return tuple(f"{start}{name}" for name in self.tars for start in ("wds_", "wds/", "clip-benchmark/wds_"))


def _find(kind: _Kind, root: Path) -> Dataset | None:
    expected = kind.expected
    if place := first_folder(root, kind.folders, *kind.needed):
        listing = kind.read(place, "test")
        names, expected = listing.classnames, listing.expected
        found, _ = open_list(listing.folder, listing.paths, listing.labels, len(names))
    elif layout := find_layout(root, (), kind.tar_places, lambda name: False):
        found = open_shards(layout[1], kind.classes)
        names = found.classnames or ()
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(f"{found.location}: expected {kind.classes} classes, found {len(names)}. Download it again.")
    return found.dataset(kind.name, kind.title, names, found.templates or kind.templates, expected)


def _find_train(kind: _Kind, root: Path) -> Dataset | None:
    """The training part, if its list or its tars are there."""
    place = first_folder(root, kind.folders, *kind.train)
    tars = next((root / name for name in kind.tar_places if has_tars(root / name, "train")), None)
    expected, templates = None, kind.templates
    if place and (kind.name != "sun397" or _sun397_split(place, "train")):
        listing = kind.read(place, "train")
        names: tuple[str, ...] = listing.classnames
        found, _ = open_list(listing.folder, listing.paths, listing.labels, len(names))
        expected = listing.expected
    elif tars:
        found = open_shards(tars, kind.classes, part="train")
        names, templates = found.classnames or (), found.templates or templates
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(f"{found.location}: expected {kind.classes} classes, found {len(names)}. Download it again.")
    title = f"{kind.title}, training images"
    return found.dataset(f"{kind.name}-train", title, names, templates, expected or len(found.labels))


_KINDS = (
    _Kind(
        "cars",
        "Stanford Cars",
        196,
        8041,
        _CARS,
        ("stanford_cars", "cars", "stanford-cars"),
        ("cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"),
        ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_train"),
        _read_cars,
        ("cars",),
        "Stanford Cars as torchvision.datasets.StanfordCars expects it: stanford_cars/ with cars_test/, "
        "cars_test_annos_withlabels.mat and devkit/; or wise data fetch cars.",
    ),
    _Kind(
        "dtd",
        "DTD",
        47,
        1880,
        _DTD,
        ("dtd/dtd", "dtd", "DTD/dtd", "DTD"),
        ("labels/test1.txt", "images"),
        ("labels/train1.txt", "images"),
        _read_dtd,
        ("vtab-dtd", "dtd"),
        "dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd, unpacked in dtd/; or wise data fetch dtd.",
    ),
    _Kind(
        "sun397",
        "SUN397",
        397,
        19_850,
        _SUN397,
        ("SUN397", "sun397/SUN397", "sun397"),
        ("ClassName.txt",),
        ("ClassName.txt",),
        _read_sun397,
        ("sun397",),
        "SUN397.tar.gz and Partitions.zip from https://vision.princeton.edu/projects/2010/SUN, unpacked, the "
        "partitions in SUN397/; or wise data fetch sun397.",
    ),
    _Kind(
        "food101",
        "Food-101",
        101,
        25_250,
        _FOOD101,
        ("food-101", "food101/food-101", "food101"),
        ("meta/test.txt", "images"),
        ("meta/train.txt", "images"),
        _read_food101,
        ("food101",),
        "food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101, unpacked; or wise data "
        "fetch food101.",
    ),
)

ENTRIES = tuple(
    Entry(
        kind.name,
        kind.title,
        partial(_find, kind),
        (*kind.folders, *kind.tar_places),
        kind.expected,
        kind.hint,
        partial(_find_train, kind),
    )
    for kind in _KINDS
)

"""CIFAR-10 and CIFAR-100, and the later test sets CIFAR-10.1 and CIFAR-10.2.

Sources: Krizhevsky 2009; Recht et al. 2018 (arXiv 1806.00451); Lu et al. 2020 (github.com/modestyachts/cifar-10.2).
Images are read from any of the published files: python batches, binary records, and .npy files with or without a
pickle. Pickles are parsed, never executed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.fingerprint import file_identity
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.layouts import (
    Found,
    find_layout,
    first_folder,
    joined,
    open_folders,
    open_shards,
    positions,
    read_lines,
    require_labels,
)
from mergekit_wise.datasets.npy_files import map_npy
from mergekit_wise.datasets.pickled_arrays import read_npy_dict, read_pickle
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.datasets.webdataset import has_tars
from mergekit_wise.errors import SuiteError

SIDE = 32
_PIXELS = SIDE * SIDE * 3

Array = NDArray[np.uint8]
"""Images, uint8 [N, 32, 32, 3]."""

Reader = Callable[[Path], Array]
"""Reads the images of a file."""

CLASSNAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# CLIP's prompts for CIFAR-10 and CIFAR-100 (github.com/openai/CLIP, data/prompts.md).
_PROMPTS = (
    "a photo of {a} {{}}.",
    "a blurry photo of {a} {{}}.",
    "a black and white photo of {a} {{}}.",
    "a low contrast photo of {a} {{}}.",
    "a high contrast photo of {a} {{}}.",
    "a bad photo of {a} {{}}.",
    "a good photo of {a} {{}}.",
    "a photo of {a} small {{}}.",
    "a photo of {a} big {{}}.",
)
TEMPLATES = tuple(prompt.format(a=article) for article in ("a", "the") for prompt in _PROMPTS)


@dataclass(frozen=True, slots=True)
class _Kind:
    """CIFAR-10 or CIFAR-100: the folders and files of its python and its binary version.

    ``labels_key`` and ``names_key`` are keys of the python version's dictionaries; in the binary version,
    ``label_bytes`` bytes precede the pixels of each record.
    """

    name: str
    title: str
    classes: int
    python: str
    binary: str
    batch: str
    labels_key: str
    label_bytes: int
    python_names: str
    names_key: str
    binary_names: str

    @property
    def parents(self) -> tuple[str, ...]:
        return ("", f"{self.name}/", f"{self.title}/", f"{self.name.upper()}/")

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(f"{parent}{folder}" for folder in (self.python, self.binary) for parent in self.parents)

    @property
    def training(self) -> tuple[str, ...]:
        return tuple(f"data_batch_{number}" for number in range(1, 6)) if self.label_bytes == 1 else ("train",)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(f"{parent}test" for parent in self.parents[1:])

    @property
    def tars(self) -> tuple[str, ...]:
        return tuple(f"{start}{self.name}" for start in ("wds_vtab-", "wds/vtab-", "clip-benchmark/wds_vtab-", "wds_"))


_CIFAR10 = _Kind(
    "cifar10",
    "CIFAR-10",
    10,
    python="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    batch="test_batch",
    labels_key="labels",
    label_bytes=1,
    python_names="batches.meta",
    names_key="label_names",
    binary_names="batches.meta.txt",
)
_CIFAR100 = _Kind(
    "cifar100",
    "CIFAR-100",
    100,
    python="cifar-100-python",
    binary="cifar-100-binary",
    batch="test",
    labels_key="fine_labels",
    label_bytes=2,
    python_names="meta",
    names_key="fine_label_names",
    binary_names="fine_label_names.txt",
)


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images in one array of a file, which `read` opens at the first access, once in each process."""

    read: Reader
    path: Path

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB."""
        return Image.fromarray(np.ascontiguousarray(self.array[index]))

    @property
    def array(self) -> Array:
        """All images; those of the file as it is now."""
        return _opened(self.read, self.path, file_identity(self.path))

    def sample(self, index: int) -> str:
        """The file and the index of the image in it, separated by a colon."""
        return f"{self.path}:{index}"

    def size(self, index: int) -> int:
        """The size of one image in bytes."""
        return _PIXELS


def _open_python_batch(path: Path, labels_key: str, classes: int) -> Found:
    """Open a batch of CIFAR's python version: a pickled dictionary."""
    return _found(ArrayImages(_read_python, path), read_pickle(path).get(labels_key), classes)


def _open_binary_batch(path: Path, label_bytes: int, classes: int) -> Found:
    """Open a batch of CIFAR's binary version: class numbers, the last of which counts, before pixels."""
    labels = _records(label_bytes, path)[:, label_bytes - 1]  # CIFAR-100 has the coarse class before the fine class
    return _found(ArrayImages(partial(_read_binary, label_bytes), path), labels, classes)


def _open_npy_pair(data: Path, labels: Path, classes: int) -> Found:
    """Open the two .npy files of CIFAR-10.1, images and labels; the images are memory-mapped."""
    return _found(ArrayImages(_read_npy_images, data), map_npy(labels), classes)


def _open_npy_dict(path: Path, classes: int) -> Found:
    """Open the .npy file of CIFAR-10.2: a dictionary with ``images`` and ``labels``."""
    return _found(ArrayImages(_read_dict_images, path), read_npy_dict(path).get("labels"), classes)


@lru_cache(maxsize=4)
def _opened(read: Reader, path: Path, identity: tuple[int, ...]) -> Array:
    """The array of a file; of one that was replaced, which has another `identity`, the new one."""
    return read(path)


def _found(images: ArrayImages, labels: object, classes: int) -> Found:
    checked = _labels(labels, images.path)
    count = len(images.array)
    if count != len(checked) or not count:
        raise SuiteError(
            f"{images.path}: expected a label for each image, found {count:,} images and {len(checked):,} labels. "
            "Download it again."
        )
    require_labels(checked, classes, str(images.path))
    return Found(checked, images.image, images.sample, images.size, str(images.path))


def _labels(data: object, path: Path) -> NDArray[np.int64]:
    """A list or an array of class numbers -> int64 [N]."""
    try:
        labels = np.asarray(data)
    except ValueError:  # nested lists of different lengths
        labels = np.empty(0, object)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SuiteError(f"{path}: expected a class number for each image, found {_shown(data)}. Download it again.")
    return labels.astype(np.int64)


def _read_python(path: Path) -> Array:
    """Rows of 3072 bytes: first the red channel, row by row, then green and blue."""
    data = read_pickle(path).get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise SuiteError(f"{path}: expected 'data', uint8 [N, {_PIXELS}], found {_shown(data)}. Download it again.")
    return _channels_last(data)


def _read_binary(label_bytes: int, path: Path) -> Array:
    return _channels_last(_records(label_bytes, path)[:, label_bytes:])


def _channels_last(rows: Array) -> Array:
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _records(label_bytes: int, path: Path) -> Array:
    """The memory-mapped file as uint8 [N, label_bytes + 3072]."""
    refuse_web_page(path)
    width = label_bytes + _PIXELS
    size = path.stat().st_size
    if size == 0 or size % width:
        raise SuiteError(f"{path}: expected records of {width:,} bytes, found {size:,} bytes. Download it again.")
    return np.memmap(path, np.uint8, mode="r").reshape(-1, width)


def _read_npy_images(path: Path) -> Array:
    return _images(map_npy(path), path)


def _read_dict_images(path: Path) -> Array:
    return _images(read_npy_dict(path).get("images"), path)


def _images(data: object, path: Path) -> Array:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (SIDE, SIDE, 3):
        raise SuiteError(f"{path}: expected images, uint8 [N, 32, 32, 3], found {_shown(data)}. Download it again.")
    return data


def _shown(data: object) -> str:
    return f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"


def _find(kind: _Kind, root: Path) -> Dataset | None:
    if place := first_folder(root, kind.places, kind.batch, kind.python_names):
        found = _open_python_batch(place / kind.batch, kind.labels_key, kind.classes)
        value = read_pickle(place / kind.python_names).get(kind.names_key)
        names = tuple(_text(name) for name in value) if isinstance(value, list) else ()
    elif place := first_folder(root, kind.places, f"{kind.batch}.bin", kind.binary_names):
        found = _open_binary_batch(place / f"{kind.batch}.bin", kind.label_bytes, kind.classes)
        names = tuple(read_lines(place / kind.binary_names))
    elif layout := find_layout(root, (), kind.tars, lambda name: True, ambiguous=kind.images):
        if layout[0] == "tars":
            found = open_shards(layout[1], kind.classes)
            names = found.classnames or ()
        else:
            names = class_folders(layout[1])
            found = open_folders(layout[1], positions(names), "by class")
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(
            f"{found.location}: expected the names of {kind.classes} classes next to it, found {len(names)}. "
            "Download it again."
        )
    # Without underscores, as in CLIP's prompts: "aquarium fish".
    names = tuple(name.replace("_", " ") for name in names)
    return found.dataset(kind.name, kind.title, names, found.templates or TEMPLATES, 10_000)


def _find_train(kind: _Kind, root: Path) -> Dataset | None:
    """The training part of the python or the binary version, as torchvision reads it, or of the tars."""
    if place := first_folder(root, kind.places, *kind.training, kind.python_names):
        parts = [_open_python_batch(place / batch, kind.labels_key, kind.classes) for batch in kind.training]
        value = read_pickle(place / kind.python_names).get(kind.names_key)
        names = tuple(_text(name) for name in value) if isinstance(value, list) else ()
    elif place := first_folder(root, kind.places, *(f"{batch}.bin" for batch in kind.training), kind.binary_names):
        parts = [_open_binary_batch(place / f"{b}.bin", kind.label_bytes, kind.classes) for b in kind.training]
        names = tuple(read_lines(place / kind.binary_names))
    elif place := next((root / tars for tars in kind.tars if has_tars(root / tars, "train")), None):
        parts = [open_shards(place, kind.classes, part="train")]
        names = parts[0].classnames or ()
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(f"{place}: expected the names of {kind.classes} classes, found {len(names)}.")
    names = tuple(name.replace("_", " ") for name in names)
    found = joined(parts, str(place))
    return found.dataset(f"{kind.name}-train", f"{kind.title}, training images", names, TEMPLATES, 50_000)


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _find_10_1(root: Path) -> Dataset | None:
    """Version 6, which the paper uses, or version 4 if there is no version 6."""
    for version, expected in ((6, 2000), (4, 2021)):
        data, labels = (f"cifar10.1_v{version}_{part}.npy" for part in ("data", "labels"))
        if place := first_folder(root, _PLACES_10_1, data, labels):
            found = _open_npy_pair(place / data, place / labels, len(CLASSNAMES))
            return found.dataset("cifar10.1", f"CIFAR-10.1 v{version}", CLASSNAMES, TEMPLATES, expected)
    return None


def _find_10_2(root: Path) -> Dataset | None:
    """The test part of CIFAR-10.2."""
    place = first_folder(root, _PLACES_10_2, "cifar102_test.npy")
    if place is None:
        return None
    found = _open_npy_dict(place / "cifar102_test.npy", len(CLASSNAMES))
    return found.dataset("cifar10.2", "CIFAR-10.2", CLASSNAMES, TEMPLATES, 2000)


_PLACES_10_1 = ("CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.1", "cifar-10.1")
_PLACES_10_2 = ("CIFAR-10.2", "cifar10.2", "cifar-10.2")

ENTRIES = (
    *(
        Entry(
            kind.name,
            kind.title,
            partial(_find, kind),
            (*kind.places, *kind.images, *kind.tars),
            10_000,
            f"The python or the binary version from https://www.cs.toronto.edu/~kriz/cifar.html, unpacked; or "
            f"wise data fetch {kind.name}.",
            partial(_find_train, kind),
        )
        for kind in (_CIFAR10, _CIFAR100)
    ),
    Entry(
        "cifar10.1",
        "CIFAR-10.1",
        _find_10_1,
        _PLACES_10_1,
        2000,
        "cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy from https://github.com/modestyachts/CIFAR-10.1 "
        "(its folder datasets), in CIFAR-10.1/.",
    ),
    Entry(
        "cifar10.2",
        "CIFAR-10.2",
        _find_10_2,
        _PLACES_10_2,
        2000,
        "cifar102_test.npy from https://github.com/modestyachts/cifar-10.2, in CIFAR-10.2/.",
    ),
)

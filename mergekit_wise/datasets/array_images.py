"""CIFAR's arrays of small images, in whichever file: python batches, binary records, .npy with or without a pickle.

Pickles are read, never executed. Knows nothing of classes, nor of where files are looked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.layouts import Found, require_labels
from mergekit_wise.datasets.pickled_arrays import read_npy_dict, read_pickle
from mergekit_wise.errors import SuiteError

SIDE = 32
_PIXELS = SIDE * SIDE * 3

Array = NDArray[np.uint8]
"""Images, uint8 [N, 32, 32, 3]."""

Read = Callable[[Path], Array]


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images in one array of a file, which `read` opens when the first is asked for, once in each process."""

    read: Read
    path: Path

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB."""
        return Image.fromarray(np.ascontiguousarray(_opened(self.read, self.path)[index]))

    def sample(self, index: int) -> str:
        """The file and the place of image `index` in it."""
        return f"{self.path}:{index}"

    def size(self, index: int) -> int:
        """The bytes of one image."""
        return _PIXELS


def open_python_batch(path: Path, labels_key: str, classes: int) -> Found:
    """A batch as CIFAR's python version has it: a pickled dictionary. Raises SuiteError, as the others below do."""
    return _found(ArrayImages(_read_python, path), read_pickle(path).get(labels_key), classes)


def open_binary_batch(path: Path, label_bytes: int, classes: int) -> Found:
    """A batch as CIFAR's binary version has it: records of one or two classes, of which the last counts, and pixels."""
    labels = _records(label_bytes, path)[:, label_bytes - 1]  # CIFAR-100 has the coarse class before the fine one
    return _found(ArrayImages(partial(_read_binary, label_bytes), path), labels, classes)


def open_npy_pair(data: Path, labels: Path, classes: int) -> Found:
    """Images and labels in two .npy files, as CIFAR-10.1 has them; the images stay on disk until they are used."""
    return _found(ArrayImages(_read_npy_images, data), _read_npy(labels), classes)


def open_npy_dict(path: Path, classes: int) -> Found:
    """``images`` and ``labels`` in a dictionary in a .npy file, as CIFAR-10.2 has them."""
    return _found(ArrayImages(_read_dict_images, path), read_npy_dict(path).get("labels"), classes)


@lru_cache(maxsize=4)
def _opened(read: Read, path: Path) -> Array:
    return read(path)


def _found(images: ArrayImages, labels: object, classes: int) -> Found:
    checked = _labels(labels, images.path)
    count = len(_opened(images.read, images.path))
    if count != len(checked) or not count:
        raise SuiteError(f"{images.path}: {count:,} images and {len(checked):,} labels do not fit. Download it again.")
    require_labels(checked, classes, str(images.path))
    return Found(checked, images.image, images.sample, images.size, str(images.path))


def _labels(data: object, path: Path) -> NDArray[np.int64]:
    """Class numbers as a list or an array of integers -> int64 [N]."""
    try:
        labels = np.asarray(data)
    except ValueError:  # lists of different lengths
        labels = np.empty(0, object)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SuiteError(f"{path}: expected a class number for each image, found {_shown(data)}. Download it again.")
    return labels.astype(np.int64)


def _read_python(path: Path) -> Array:
    """Rows of 3072 bytes: the red channel, row by row, then green and blue."""
    batch: Mapping[str, object] = read_pickle(path)
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise SuiteError(f"{path}: expected 'data', uint8 [N, {_PIXELS}], found {_shown(data)}. Download it again.")
    return _upright(data)


def _read_binary(label_bytes: int, path: Path) -> Array:
    return _upright(_records(label_bytes, path)[:, label_bytes:])


def _upright(rows: Array) -> Array:
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _records(label_bytes: int, path: Path) -> Array:
    """The file, mapped, as uint8 [N, classes and 3072]."""
    width = label_bytes + _PIXELS
    size = path.stat().st_size
    if size == 0 or size % width:
        raise SuiteError(f"{path}: expected records of {width:,} bytes, found {size:,} bytes. Download it again.")
    return np.memmap(path, np.uint8, mode="r").reshape(-1, width)


def _read_npy_images(path: Path) -> Array:
    return _images(_read_npy(path), path)


def _read_dict_images(path: Path) -> Array:
    return _images(read_npy_dict(path).get("images"), path)


def _read_npy(path: Path) -> NDArray[np.generic]:
    """An array, mapped; one of objects, which would be a pickle, is refused."""
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SuiteError(f"{path}: expected an array in a .npy file: {error}. Download it again.") from error
    return array


def _images(data: object, path: Path) -> Array:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (SIDE, SIDE, 3):
        raise SuiteError(f"{path}: expected images, uint8 [N, 32, 32, 3], found {_shown(data)}. Download it again.")
    return data


def _shown(data: object) -> str:
    return f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"

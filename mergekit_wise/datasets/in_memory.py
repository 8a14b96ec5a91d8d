"""Data sets in memory: torch's, torchvision's, Hugging Face's, or any sequence of images and labels.

Labels are read once, without decoding images where the data set lists them. Knows no model, and imports torch and
Hugging Face's library only where they are loaded already.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.given import DatasetInMemory
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural, shown

_IMAGE_KEYS, _LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "fine_label")
_LISTED = ("targets", "labels", "_labels")
"""Attributes in which torchvision's data sets list their labels."""

_PROBED = 5
"""Listed labels that are compared with those of the samples."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """A data set as it was given: its samples are pairs, mappings, or images alone.

    Attributes:
        name: for messages.
        items: the samples, by index.
        image_key, label_key: of a sample's image and label; None for a sample that is the image itself, or for none.
    """

    name: str
    items: Any
    image_key: int | str | None
    label_key: int | str | None

    def image(self, index: int) -> Any:
        """Image i as `Dataset.image` gives it. Raises SuiteError if it is none, or cannot be read."""
        return as_image(self._raw(index), self.sample(index))

    def content(self, index: int) -> bytes:
        """A digest of the pixels of image i, with their shape and type. Raises SuiteError."""
        found = self.image(index)
        if _is_tensor(found):  # as float32 the model gets it; NumPy has no bfloat16
            pixels, kind = found.float().numpy(), str(found.dtype)
        else:
            pixels = np.asarray(found)
            kind = f"{pixels.dtype} {found.mode}"
        facts = f"{kind} {pixels.shape}\n".encode()
        return hashlib.sha256(facts + np.ascontiguousarray(pixels).tobytes()).digest()

    def label(self, index: int) -> Any:
        """The label of image i, as it was given."""
        return self._item(index)[self.label_key]

    def sample(self, index: int) -> str:
        """The name of image i."""
        return f"{self.name}[{index}]"

    def _raw(self, index: int) -> Any:
        item = self._item(index)
        return item if self.image_key is None else item[self.image_key]

    def _item(self, index: int) -> Any:
        try:
            return self.items[index]
        except (OSError, ValueError) as error:
            raise SuiteError(f"{self.sample(index)}: cannot be read: {error}.") from error


def open_labelled(given: DatasetInMemory) -> Mapping[str, Dataset]:
    """The data sets by name, each opened once. Raises SuiteError for one without labels, or without images."""
    for name, items in given.given.items():
        if name not in given.opened:
            given.opened[name] = _open(name, items)
    return given.opened


def open_images(given: DatasetInMemory) -> Dataset:
    """Images of one data set without classes, whose labels, if there are some, are ignored. Raises SuiteError."""
    if len(given.given) != 1:
        raise SuiteError(f"{given}: expected images of one data set, found {len(given.given)}.")
    ((name, items),) = given.given.items()
    samples = _samples(name, items)
    first = samples.image(0)
    notes = () if samples.label_key is None else ("its labels are ignored",)
    return Dataset(
        name,
        name,
        (),
        np.zeros(len(items), np.int64),
        samples.image,
        sample=samples.sample,
        content=samples.content,
        is_transformed=_is_tensor(first),
        notes=notes,
    )


def with_all_classes(dataset: Dataset, outputs: int) -> Dataset:
    """The data set with as many classes as a head has outputs, if its labels are numbers without names."""
    if dataset.has_names or len(dataset.classnames) >= outputs:
        return dataset
    note = (
        f"its labels have no names, and are taken as the numbers of the head's {outputs} classes; only the first "
        f"{len(dataset.classnames)} occur"
    )
    return replace(dataset, classnames=_numbered(outputs), notes=(*dataset.notes, note))


def as_image(value: Any, sample: str) -> Any:
    """A PIL image of an image or of uint8 values; a float tensor [C, H, W] as it is. Raises SuiteError for others."""
    if isinstance(value, Image.Image):
        return value
    tensor = _is_tensor(value)
    if tensor and value.is_floating_point() and value.ndim == 3:
        return value.detach().cpu()
    pixels = value.detach().cpu().numpy() if tensor else value
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
        if tensor and pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3):
            return Image.fromarray(np.ascontiguousarray(pixels))
    raise SuiteError(
        f"{sample}: expected an image of PIL's, a uint8 array [H, W, 3], or a tensor [3, H, W] of uint8 or of what a "
        f"transform made; found {_described(value)}."
    )


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"a {type(value).__name__}"
    return f"a {type(value).__name__} of {str(value.dtype).removeprefix('torch.')} and shape {list(shape)}"


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _open(name: str, items: Any) -> Dataset:
    samples = _samples(name, items)
    if samples.label_key is None:
        raise SuiteError(
            f"{name}: its samples have no labels; expected pairs (image, label), found {_described(samples.items[0])}."
        )
    labels, notes = _labels(samples)
    declared = _declared_classes(samples)
    if declared and int(labels.max()) >= len(declared):
        at = int(labels.argmax())
        raise SuiteError(
            f"{name}: names {plural(len(declared), 'class')}, and the label of image {at} is {labels[at]}."
        )
    return Dataset(
        name,
        name,
        declared or _numbered(int(labels.max()) + 1),
        labels,
        samples.image,
        sample=samples.sample,
        content=samples.content,
        is_transformed=_is_tensor(samples.image(0)),
        has_names=bool(declared),
        notes=notes,
    )


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _samples(name: str, items: Any) -> _Samples:
    """The data set with the places of images and labels, which the first sample shows."""
    if not len(items):
        raise SuiteError(f"{name}: has no images.")
    if (columns := _columns(items)) is not None:
        return _Samples(name, items.with_format(None), *columns)
    first = items[0]
    if isinstance(first, Mapping):
        image, label = (next((key for key in keys if key in first), None) for keys in (_IMAGE_KEYS, _LABEL_KEYS))
        if image is None:
            raise SuiteError(f"{name}: its samples have {', '.join(map(str, first))}, and none is {_IMAGE_KEYS[0]!r}.")
        return _Samples(name, items, image, label)
    if isinstance(first, tuple | list):
        return _Samples(name, items, 0, 1 if len(first) > 1 else None)
    return _Samples(name, items, None, None)


def _columns(items: Any) -> tuple[str, str | None] | None:
    """The columns of images and labels of Hugging Face's data set; None for others. Raises SuiteError."""
    library: Any = sys.modules.get("datasets")
    kind: Any = getattr(library, "Dataset", None)
    if not isinstance(kind, type) or not isinstance(items, kind):
        return None
    features: Any = items.features  # type: ignore[attr-defined]
    images = [key for key, feature in features.items() if isinstance(feature, library.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, library.ClassLabel)]
    image = next((key for key in _IMAGE_KEYS if key in images), images[0] if len(images) == 1 else None)
    label = next((key for key in _LABEL_KEYS if key in labels), labels[0] if len(labels) == 1 else None)
    if image is None or (label is None and labels):
        raise SuiteError(
            f"its columns are {', '.join(features)}: which holds the images, and which the labels, is not clear. "
            "Rename them to 'image' and 'label' (dataset.rename_column)."
        )
    if label is None:
        label = next((key for key in _LABEL_KEYS if key in features), None)
    return image, label


# Labels and their names


def _labels(samples: _Samples) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The labels, int64 [N], and a note if all samples had to be read for them."""
    listed = _listed(samples.items, samples.label_key)
    notes: tuple[str, ...] = ()
    if listed is None or not _agree(samples, listed):
        listed = [samples.label(index) for index in range(len(samples.items))]
        if not isinstance(samples.items, list | tuple) and not _is_tensors(samples.items):
            notes = (f"every image was decoded once for the labels, which it does not list in .{_LISTED[0]}",)
    return np.array([_whole(samples, index, label) for index, label in enumerate(listed)], np.int64), notes


def _whole(samples: _Samples, index: int, label: Any) -> int:
    number = label.item() if getattr(label, "ndim", None) == 0 else label
    if isinstance(number, bool) or not isinstance(number, int):
        raise SuiteError(
            f"{samples.sample(index)}: expected the number of a class as label, found {shown(repr(label), 60)}."
        )
    if number < 0:
        raise SuiteError(f"{samples.sample(index)}: its label is {number}, where classes are counted from 0.")
    return number


def _agree(samples: _Samples, listed: Sequence[Any]) -> bool:
    """Whether some listed labels, evenly spread, are those of the samples; a transform of targets changes these."""
    count = len(samples.items)
    if len(listed) != count:
        return False
    places = {place * (count - 1) // max(1, _PROBED - 1) for place in range(_PROBED)}
    return all(int(samples.label(place)) == int(listed[place]) for place in places if _is_number(listed[place]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) or _is_tensor(value)


def _listed(items: Any, key: int | str | None) -> Sequence[Any] | None:
    """The labels that a data set lists, without reading its samples; None if it lists none."""
    if _columns(items) is not None:
        return list(items[key])
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(items, data.Subset):
        inner = _listed(items.dataset, key)
        return None if inner is None else [inner[index] for index in items.indices]
    if data is not None and isinstance(items, data.ConcatDataset):
        parts = [_listed(part, key) for part in items.datasets]
        return None if any(part is None for part in parts) else [each for part in parts for each in part or ()]
    found: Any = next(filter(_is_list, (getattr(items, name, None) for name in _LISTED)), None)
    listed: Sequence[Any] | None = found.tolist() if isinstance(found, np.ndarray) or _is_tensor(found) else found
    return listed


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray) or _is_tensor(value)


def _is_tensors(items: Any) -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(items, data.TensorDataset)


def _declared_classes(samples: _Samples) -> tuple[str, ...]:
    """The names of the classes, as torchvision's data sets and Hugging Face's features have them; else none."""
    items = samples.items
    if _columns(items) is not None:
        return tuple(map(str, getattr(items.features[samples.label_key], "names", None) or ()))
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(items, data.Subset):
        return _declared_classes(replace(samples, items=items.dataset))
    if data is not None and isinstance(items, data.ConcatDataset):
        every = {_declared_classes(replace(samples, items=part)) for part in items.datasets}
        return every.pop() if len(every) == 1 else ()
    names = getattr(items, "classes", None)
    if not isinstance(names, list | tuple):
        return ()
    # torchvision's ImageNet has tuples of synonyms.
    return tuple(str(name[0]) if isinstance(name, tuple | list) and name else str(name) for name in names)

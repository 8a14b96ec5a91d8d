"""ObjectNet, of which the classes count that ImageNet has too: 113 of 313.

Source: Barbu et al. 2019, https://objectnet.dev. The images have a thin red border, so two pixels are cropped on each
side before anything else, from folders and tars alike. Knows nothing of models.
"""

from pathlib import Path

from mergekit_wise.datasets.class_names import imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import Found, find_layout, open_shards
from mergekit_wise.datasets.objectnet_map import FILES, ObjectNetMap, find_map
from mergekit_wise.errors import SuiteError

BORDER = 2
"""Pixels cropped on each side."""

_CLASSES = 113
_FOLDERS = ("objectnet-1.0/images", "objectnet/objectnet-1.0/images", "objectnet/images")
_TARS = ("wds_objectnet", "wds/objectnet", "clip-benchmark/wds_objectnet")
_MAPPINGS = ("objectnet-1.0/mappings", "objectnet/objectnet-1.0/mappings", "objectnet/mappings", "objectnet")


def find_objectnet(root: Path) -> Dataset | None:
    """ObjectNet under `root`, in its own layout or in tars.

    The tars hold no map to ImageNet's classes. Where none lies under `root` either, the data set has no columns: a
    head of its own 113 classes can be judged on it, one of ImageNet's 1000 cannot.

    Raises SuiteError if folders and map do not fit each other, or if anything is damaged.
    """
    layout = find_layout(root, _FOLDERS, _TARS, lambda _: True)
    if layout is None:
        return None
    kind, place = layout
    elsewhere = tuple(root / name for name in _MAPPINGS)
    if kind == "folders":
        return _from_folders(
            place, find_map((place.parent / "mappings", place.parent, place.parent.parent, *elsewhere))
        )
    return _from_tars(place, find_map((place / "mappings", place, *elsewhere)))


def _from_folders(place: Path, mapping: ObjectNetMap | None) -> Dataset:
    if mapping is None:
        raise SuiteError(f"{place}: expected {', '.join(FILES)} in {place.parent / 'mappings'}; unpack all of the zip.")
    strangers = [name for name in class_folders(place) if name not in mapping.known]
    if strangers:
        raise SuiteError(
            f"{place}: the folder {strangers[0]!r} is not in {FILES[0]}, nor are {len(strangers) - 1} others. "
            "Expected ObjectNet 1.0."
        )
    label_of = {folder: label for label, folder in enumerate(mapping.folders)}
    images, labels = list_images(place, label_of, BORDER)
    return _dataset(Found(labels, images.image, images.sample, images.size, str(place)), mapping)


def _from_tars(place: Path, mapping: ObjectNetMap | None) -> Dataset:
    found = open_shards(place, _CLASSES if mapping is None else len(mapping.folders), BORDER)
    if mapping is None and (found.classnames is None or len(found.classnames) != _CLASSES):
        raise SuiteError(f"{place}: expected {_CLASSES} names in classnames.txt, or ObjectNet's mappings beside it.")
    return _dataset(found, mapping)


def _dataset(found: Found, mapping: ObjectNetMap | None) -> Dataset:
    return Dataset(
        "objectnet",
        "ObjectNet",
        (found.classnames or ()) if mapping is None else mapping.names,
        found.labels,
        found.image,
        templates=imagenet_templates(),
        columns=None if mapping is None else mapping.columns,
        vocabulary="" if mapping is None else VOCABULARY,
        sample=found.sample,
        expected=18_574,
        location=found.location,
        size=found.size,
    )


ENTRIES = (
    Entry(
        "objectnet",
        "ObjectNet",
        find_objectnet,
        (*_FOLDERS, *_TARS),
        18_574,
        "objectnet-1.0.zip from https://objectnet.dev, unpacked with the password that is told there; or wise data "
        "fetch objectnet, with the zip's mappings/ beside the tars for heads of ImageNet's classes.",
    ),
)

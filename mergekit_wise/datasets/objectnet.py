"""ObjectNet: of its 313 classes only the 113 that ImageNet has, too, are evaluated.

Source: Barbu et al. 2019, https://objectnet.dev. The images have a thin red border, so two pixels are cropped on each
side before any other preprocessing, whether the images come from folders or from tars.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.datasets.class_names import imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import Found, find_layout, open_shards, read_json
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed

BORDER = 2
"""Pixels cropped on each side."""

_CLASSES = 113
_IMAGES = 18_574
_FOLDERS = ("objectnet-1.0/images", "objectnet/objectnet-1.0/images", "objectnet/images")
_TARS = ("wds_objectnet", "wds/objectnet", "clip-benchmark/wds_objectnet")
MAPPING_PLACES = ("objectnet-1.0/mappings", "objectnet/objectnet-1.0/mappings", "objectnet/mappings", "objectnet")

MAPPING_FILES = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "imagenet_to_label_2012_v2",
    "pytorch_to_imagenet_2012_id.json",
)
"""ObjectNet's own files that map its classes to ImageNet's.

In this order: from folder to ObjectNet's class name; from that to ImageNet's labels, separated by "; "; ImageNet's
labels in the order of ILSVRC, one per line; from ImageNet's class in the order of WordNet ids to the line, both from 0.
"""


@dataclass(frozen=True, slots=True)
class ObjectNetMap:
    """The classes that ImageNet has, too, in the order of their folders.

    ``names`` are ObjectNet's own, in lower case; ``columns`` are ImageNet's classes for each of them, ascending;
    ``all_folders`` are all folders of the download, including those of other classes.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    all_folders: frozenset[str]


def find_objectnet(root: Path) -> Dataset | None:
    """ObjectNet under `root`, in the layout of its own download or in tars; None if there is neither.

    The tars do not contain the mapping to ImageNet's classes. If it is not found under `root` either, the data set has
    no columns, and only a head for its own 113 classes can be evaluated on it.

    Raises SuiteError if the folders and the mapping do not match, or if a file is damaged.
    """
    layout = find_layout(root, _FOLDERS, _TARS, lambda _: True)
    if layout is None:
        return None
    kind, place = layout
    elsewhere = tuple(root / name for name in MAPPING_PLACES)
    if kind == "folders":
        mapping = find_map((place.parent / "mappings", place.parent, place.parent.parent, *elsewhere))
        found = _open_folders(place, mapping)
    else:
        mapping = find_map((place / "mappings", place, *elsewhere))
        found = open_shards(place, _CLASSES if mapping is None else len(mapping.folders), BORDER)
    if mapping is not None:
        return found.dataset(
            "objectnet", "ObjectNet", mapping.names, imagenet_templates(), _IMAGES, mapping.columns, VOCABULARY
        )
    if found.classnames is None or len(found.classnames) != _CLASSES:
        raise SuiteError(
            f"{place}: expected {_CLASSES} names in classnames.txt, or ObjectNet's mappings in {place / 'mappings'}."
        )
    return found.dataset("objectnet", "ObjectNet", found.classnames, imagenet_templates(), _IMAGES)


def _open_folders(place: Path, mapping: ObjectNetMap | None) -> Found:
    if mapping is None:
        raise SuiteError(
            f"{place}: expected {', '.join(MAPPING_FILES)} in {place.parent / 'mappings'}. Unpack the whole archive."
        )
    if unknown := [name for name in class_folders(place) if name not in mapping.all_folders]:
        raise SuiteError(
            f"{place}: expected the folders of ObjectNet 1.0, found some that are not in {MAPPING_FILES[0]}: "
            f"{listed(map(repr, unknown), 3)}."
        )
    images, labels = list_images(place, {folder: label for label, folder in enumerate(mapping.folders)}, BORDER)
    return Found(labels, images.image, images.sample, images.size, str(place), notes=images.notes)


def find_map(places: Iterable[Path]) -> ObjectNetMap | None:
    """The mapping in the first of `places` that has all of `MAPPING_FILES`; None if none has.

    Raises SuiteError if a file is damaged or the files do not match each other.
    """
    for place in places:
        if all((place / name).is_file() for name in MAPPING_FILES):
            return _read_map(place)
    return None


def _read_map(place: Path) -> ObjectNetMap:
    names = _read_texts(place / MAPPING_FILES[0])
    labels = _read_texts(place / MAPPING_FILES[1])
    class_of = _imagenet_classes(place)
    folder_of = {name: folder for folder, name in names.items()}
    if unknown := sorted(labels.keys() - folder_of.keys()):
        raise SuiteError(
            f"{place}: {MAPPING_FILES[1]} has the class {unknown[0]!r}, which is not in {MAPPING_FILES[0]}."
        )
    if unknown := sorted({label for text in labels.values() for label in text.split("; ")} - class_of.keys()):
        raise SuiteError(
            f"{place}: {MAPPING_FILES[1]} has the label {unknown[0]!r}, which is not exactly one line of "
            f"{MAPPING_FILES[2]}."
        )
    folders = tuple(sorted(folder_of[name] for name in labels))
    columns = tuple(tuple(sorted(class_of[label] for label in labels[names[f]].split("; "))) for f in folders)
    return ObjectNetMap(folders, tuple(names[f].lower() for f in folders), columns, frozenset(names))


def _imagenet_classes(place: Path) -> dict[str, int]:
    """ImageNet's class for each of its labels; labels that two classes share ("crane") are left out."""
    order = read_json(place / MAPPING_FILES[3])
    path = place / MAPPING_FILES[2]
    refuse_web_page(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read: {error}. Unpack the download again.") from error
    class_at = {line: int(number) for number, line in order.items() if number.isdecimal() and isinstance(line, int)}
    if sorted(class_at.values()) != list(range(len(order))) or sorted(class_at) != list(range(len(lines))):
        raise SuiteError(
            f"{place}: expected {MAPPING_FILES[3]} to contain each of the {len(lines)} lines of {MAPPING_FILES[2]} "
            "once. Unpack the download again."
        )
    stripped = [line.strip() for line in lines]
    return {label: class_at[line] for line, label in enumerate(stripped) if stripped.count(label) == 1}


def _read_texts(path: Path) -> dict[str, str]:
    value = read_json(path)
    if not all(isinstance(text, str) for text in value.values()):
        raise SuiteError(f"{path}: expected an object of strings, found other values. Unpack the download again.")
    return value


ENTRIES = (
    Entry(
        "objectnet",
        "ObjectNet",
        find_objectnet,
        (*_FOLDERS, *_TARS),
        _IMAGES,
        "objectnet-1.0.zip from https://objectnet.dev, unpacked with the password given there; or wise data fetch "
        "objectnet, with the zip's mappings/ next to the tars for heads of ImageNet's classes.",
    ),
)

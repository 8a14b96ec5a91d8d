"""Which of ObjectNet's classes are which of ImageNet's, from the files of its own download.

Knows nothing of images.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.errors import SuiteError

FILES = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "imagenet_to_label_2012_v2",
    "pytorch_to_imagenet_2012_id.json",
)
"""Folder -> name; name -> ImageNet's labels, parted by "; "; those labels in ILSVRC's order, one a line; ImageNet's
class in the order of WordNet ids -> line, both from 0."""


@dataclass(frozen=True, slots=True)
class ObjectNetMap:
    """The classes that ImageNet has too, in the order of their folders.

    ``names`` are ObjectNet's own, in lower case; ``columns`` the classes of ImageNet that each stands for, ascending;
    ``known`` all folders of the download, those that do not count among them.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    known: frozenset[str]


def find_map(places: Iterable[Path]) -> ObjectNetMap | None:
    """The map in the first of `places` that holds all of `FILES`; None if none does.

    Raises SuiteError if a file is damaged or the files do not fit each other.
    """
    for place in places:
        if all((place / name).is_file() for name in FILES):
            return _read(place)
    return None


def _read(place: Path) -> ObjectNetMap:
    names = _texts(place / FILES[0])
    labels = _texts(place / FILES[1])
    class_of = _classes(place)
    folder_of = {name: folder for folder, name in names.items()}
    if lost := sorted(labels.keys() - folder_of.keys()):
        raise SuiteError(f"{place}: {FILES[1]} maps {lost[0]!r}, which is no folder's name in {FILES[0]}.")
    if lost := sorted({label for text in labels.values() for label in text.split("; ")} - class_of.keys()):
        raise SuiteError(f"{place}: {FILES[1]} names {lost[0]!r}, which is no one line of {FILES[2]}.")
    folders = tuple(sorted(folder_of[name] for name in labels))
    columns = tuple(tuple(sorted(class_of[label] for label in labels[names[f]].split("; "))) for f in folders)
    return ObjectNetMap(folders, tuple(names[f].lower() for f in folders), columns, frozenset(names))


def _classes(place: Path) -> dict[str, int]:
    """ImageNet's label -> its class; labels that two classes share ("crane") are left out."""
    order = _json(place / FILES[3])
    lines = _text(place / FILES[2]).splitlines()
    class_at = {line: int(number) for number, line in order.items() if number.isdecimal() and isinstance(line, int)}
    if sorted(class_at.values()) != list(range(len(order))) or sorted(class_at) != list(range(len(lines))):
        raise SuiteError(
            f"{place}: expected {FILES[3]} to number the {len(lines)} lines of {FILES[2]}, each once from 0; "
            "it does not. Unpack the download again."
        )
    stripped = [line.strip() for line in lines]
    return {label: class_at[line] for line, label in enumerate(stripped) if stripped.count(label) == 1}


def _texts(path: Path) -> dict[str, str]:
    found = _json(path)
    if not all(isinstance(value, str) for value in found.values()):
        raise SuiteError(f"{path}: expected texts for texts, found other values. Unpack the download again.")
    return {key: str(value) for key, value in found.items()}


def _json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: is no JSON ({error}). Unpack the download again.") from error
    if not isinstance(found, dict):
        raise SuiteError(f"{path}: expected a JSON object, found a {type(found).__name__}. Unpack the download again.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read: {error}.") from error

"""A user's own data set: a folder of class folders or tars, described further by an optional TOML file.

    root = "images"                  # class folders or tars; relative to this file
    title = "Animals"                # in tables; the file's name otherwise
    classnames = ["cat", "dog"]      # or a file with one per line, or "imagenet"
    templates = "prompts.txt"        # or a list, or "openai", "simple", "plain"
    metric = "mean-per-class"        # or "top-1", "macro-f1"
    [class_map]                      # folders to evaluate, with their class by name or number
    siamese = "cat"
    poodle = 1

This module knows nothing of the data sets that the catalogue names.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeGuard

from mergekit_wise.datasets.class_names import (
    CLASSNAMES,
    PLAIN,
    TEMPLATES,
    imagenet_classnames,
    imagenet_templates,
    imagenet_wnids,
    read_classnames,
    read_templates,
)
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.datasets.layouts import Found, open_folders, require_labels
from mergekit_wise.datasets.webdataset import has_tars, open_tars
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean, listed, plural

KEYS = ("root", "title", "classnames", "templates", "class_map", "metric")
"""The keys that a TOML file may have."""

METRICS: tuple[Literal["top-1", "mean-per-class", "macro-f1"], ...] = ("top-1", "mean-per-class", "macro-f1")

MAX_NUMBERED = 100_000
"""The most classes that tars without class names may have: a .cls file can hold any number."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a user states about a data set beyond its folders; None or empty where nothing is stated.

    ``class_map`` gives the class of each folder by name or number. Folders that it does not name are left out.
    """

    name: str
    title: str
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    class_map: Mapping[str, str | int] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    vocabulary: str = ""


def open_folder(root: Path, description: Description | None = None) -> Dataset:
    """Open the data set in `root`: tars if there are some in ``test/`` or in `root`, class folders otherwise.

    Classes are named after their folders, in the order of the folders' names. If all folders are WordNet ids of
    ImageNet, the classes are those of ImageNet. If all folders are numbers, they must be 0, 1, 2 ... without a gap.

    Raises SuiteError if there are no images, or if the class of a folder is not clear.
    """
    if description is None:
        description = Description(root.resolve().name, root.resolve().name)
    if not root.is_dir():
        raise SuiteError(f"{root}: no such folder. Expected class folders with images, or tars in test/.")
    if has_tars(root):
        return _from_tars(root, description)
    return _from_class_map(root, description) if description.class_map else _from_folders(root, description)


def open_toml(path: Path) -> Dataset:
    """Open the data set that the TOML file `path` describes; its name is the file's.

    Raises SuiteError for a key or a value that is wrong, naming both.
    """
    table = _read(path)
    classnames, templates = (_texts(table, key, path) for key in ("classnames", "templates"))
    title = _text(table, "title", path)
    notes: list[str] = []
    description = Description(
        name=path.stem,
        title=title or path.stem,
        classnames=None
        if classnames is None
        else read_classnames(_relative_to(path, classnames, CLASSNAMES), notes.append),
        templates=None if templates is None else read_templates(_relative_to(path, templates, TEMPLATES), notes.append),
        class_map=_class_map(table, path),
        metric=_metric(table, path),
        vocabulary="imagenet" if classnames == "imagenet" else "",
    )
    root = _text(table, "root", path)
    if root is None:
        raise SuiteError(f"{path}: the key 'root' is missing; expected the folder that holds the images.")
    dataset = open_folder(path.parent / root, description)
    return replace(dataset, notes=(*dataset.notes, *notes))


def _from_tars(root: Path, description: Description) -> Dataset:
    if description.class_map:
        raise SuiteError(f"{root}: class_map is for class folders; tars have class numbers already.")
    tars = open_tars(root)
    names = description.classnames or tars.classnames or _numbered(int(tars.labels.max()) + 1, root)
    require_labels(tars.labels, len(names), str(root))
    images = tars.images
    found = Found(tars.labels, images.image, images.sample, images.size, str(root), templates=tars.templates)
    return _dataset(found, names, description)


def _numbered(count: int, root: Path) -> tuple[str, ...]:
    """Class numbers as names, for tars without class names."""
    if count > MAX_NUMBERED:
        raise SuiteError(
            f"{root}: expected class numbers below {MAX_NUMBERED:,}, found {count - 1:,} in a .cls file. If it is "
            "right, list the class names in classnames.txt, one per line."
        )
    return tuple(map(str, range(count)))


def _from_folders(root: Path, description: Description) -> Dataset:
    folders = class_folders(root)
    if not folders:
        raise SuiteError(f"{root}: expected class folders with images, or tars in test/; found neither.")
    wnids = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    if all(folder in wnids for folder in folders):
        if description.vocabulary == "imagenet" and description.classnames:
            return _dataset(open_folders(root, wnids, "by WordNet ids"), description.classnames, description)
        if not description.classnames:
            return _from_wnids(root, description, tuple(wnids[folder] for folder in folders))
    label_of = _numbers(root, folders) or {folder: label for label, folder in enumerate(folders)}
    names = description.classnames or tuple(sorted(folders, key=label_of.__getitem__))
    if len(names) != len(folders):
        raise SuiteError(
            f"{root}: expected {plural(len(folders), 'class name')}, one per class folder, found {len(names)}. "
            "Give one for each folder, or assign folders to classes with class_map."
        )
    return _dataset(open_folders(root, label_of, "after classes"), names, description)


def _from_wnids(root: Path, description: Description, columns: tuple[int, ...]) -> Dataset:
    names, wnids = imagenet_classnames(), imagenet_wnids()
    found = open_folders(root, {wnids[column]: label for label, column in enumerate(columns)}, "by WordNet ids")
    classes = tuple(names[column] for column in columns)
    complete = len(columns) == len(names)
    return _dataset(found, classes, description, None if complete else tuple((c,) for c in columns), "imagenet")


def _numbers(root: Path, folders: tuple[str, ...]) -> dict[str, int] | None:
    """Labels of folders whose names are numbers; None unless all are."""
    if not all(folder.isdecimal() for folder in folders):
        return None
    if sorted(map(int, folders)) != list(range(len(folders))):
        raise SuiteError(
            f"{root}: expected folders with the numbers from 0 to {len(folders) - 1}, found other numbers. "
            "Assign each folder to a class with class_map in a TOML file."
        )
    return {folder: int(folder) for folder in folders}


def _from_class_map(root: Path, description: Description) -> Dataset:
    folders, class_map = class_folders(root), description.class_map
    if unknown := [folder for folder in class_map if folder not in folders]:
        raise SuiteError(
            f"{root}: class_map names the folder {unknown[0]!r}, which is not among its "
            f"{plural(len(folders), 'folder')}.{did_you_mean(unknown[0], folders)}"
        )
    targets = {target for target in class_map.values() if isinstance(target, str)}
    names = description.classnames or tuple(sorted(targets))
    label_of = {folder: _label(root, folder, target, names) for folder, target in class_map.items()}
    images, labels = list_images(root, label_of)
    left_out = [folder for folder in folders if folder not in class_map]
    note = f"class_map does not name {plural(len(left_out), 'folder')}, left out: {listed(map(repr, left_out), 5)}"
    notes = (note,) if left_out else ()
    return _dataset(Found(labels, images.image, images.sample, images.size, str(root), notes=notes), names, description)


def _label(root: Path, folder: str, target: str | int, names: tuple[str, ...]) -> int:
    labels = [label for label, name in enumerate(names) if target in (label, name)]
    if len(labels) == 1:
        return labels[0]
    problem = (
        f"which is the name of {len(labels)} classes; give its number"
        if labels
        else f"which is not among the {plural(len(names), 'class')}"
    )
    raise SuiteError(f"{root}: class_map gives {folder!r} the class {target!r}, {problem}.")


def _dataset(
    found: Found,
    names: tuple[str, ...],
    description: Description,
    columns: tuple[tuple[int, ...], ...] | None = None,
    vocabulary: str = "",
) -> Dataset:
    vocabulary = description.vocabulary or vocabulary
    default_templates = imagenet_templates() if vocabulary == "imagenet" else PLAIN
    return Dataset(
        description.name,
        description.title,
        names,
        found.labels,
        found.image,
        templates=description.templates or found.templates or default_templates,
        columns=columns,
        vocabulary=vocabulary,
        metric=description.metric,
        sample=found.sample,
        location=found.location,
        size=found.size,
        notes=found.notes,
    )


def _read(path: Path) -> Mapping[str, object]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: is not valid TOML: {error}.") from error
    for key in table:
        if key not in KEYS:
            suggestion = did_you_mean(key, KEYS, 1) or f" Known keys: {', '.join(KEYS)}."
            raise SuiteError(f"{path}: unknown key {key!r}.{suggestion}")
    return table


def _text(table: Mapping[str, object], key: str, path: Path) -> str | None:
    value = table.get(key)
    if value is not None and not _is_text(value):
        raise SuiteError(f"{path}: {key!r} should be a string, found {value!r}.")
    return value


def _texts(table: Mapping[str, object], key: str, path: Path) -> str | tuple[str, ...] | None:
    """The value of `key`: the name of a file or of a known list, or a list."""
    value = table.get(key)
    if isinstance(value, list) and value and all(map(_is_text, value)):
        return tuple(value)
    if value is not None and not _is_text(value):
        raise SuiteError(f"{path}: {key!r} should be a list of strings or the name of a file, found {value!r}.")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a text that can be a name or a path."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _relative_to(
    path: Path, source: str | tuple[str, ...], known: Mapping[str, Callable[[], tuple[str, ...]]]
) -> Path | tuple[str, ...]:
    """Resolve the name of a file relative to the TOML file, and the name of a known list whatever lies there."""
    if not isinstance(source, str):
        return source
    return known[source]() if source in known else path.parent / source


def _class_map(table: Mapping[str, object], path: Path) -> dict[str, str | int]:
    value = table.get("class_map", {})
    if not isinstance(value, dict) or ("class_map" in table and not value):
        raise SuiteError(f"{path}: 'class_map' should be a table of folders and their classes, found {value!r}.")
    for folder, target in value.items():
        if isinstance(target, bool) or not isinstance(target, (str, int)):
            raise SuiteError(
                f"{path}: class_map gives {folder!r} the class {target!r}; expected the name or the number of a class."
            )
        if isinstance(target, int) and "classnames" not in table:
            raise SuiteError(
                f"{path}: class_map gives {folder!r} the number {target}, which needs the key 'classnames'."
            )
    return value


def _metric(table: Mapping[str, object], path: Path) -> Metric:
    value = table.get("metric", "top-1")
    for kind in METRICS:
        if value == kind:
            return Metric(kind)
    raise SuiteError(f"{path}: 'metric' is {value!r}; expected one of {', '.join(METRICS)}.")

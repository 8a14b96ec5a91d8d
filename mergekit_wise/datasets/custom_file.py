"""A user's own data set, told by a short TOML file.

    root = "images"                  # class folders or tars; relative to this file
    title = "Animals"                # in tables; the file's name otherwise
    classnames = ["cat", "dog"]      # or a file with one a line, or "imagenet"
    templates = "prompts.txt"        # or a list, or "imagenet", "simple", "plain"
    metric = "mean-per-class"        # or "top-1", "macro-f1"
    [class_map]                      # folders that count, with their class by name or number
    siamese = "cat"
    poodle = 1

Knows what the file may say; knows nothing of images.
"""

import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from mergekit_wise.datasets.class_names import CLASSNAMES, TEMPLATES, read_classnames, read_templates
from mergekit_wise.datasets.custom import Customization, open_folder
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.errors import SuiteError

KEYS = ("root", "title", "classnames", "templates", "class_map", "metric")
METRICS: tuple[Literal["top-1", "mean-per-class", "macro-f1"], ...] = ("top-1", "mean-per-class", "macro-f1")


def open_own_file(path: Path) -> Dataset:
    """The data set that the TOML file `path` tells of; its name is the file's.

    Raises SuiteError for a key or a value that is wrong, naming both.
    """
    told = _read(path)
    classnames, templates = (_words(told, key, path) for key in ("classnames", "templates"))
    title = _text(told, "title", path)
    wishes = Customization(
        name=path.stem,
        title=title or path.stem,
        classnames=None if classnames is None else read_classnames(_beside(classnames, CLASSNAMES, path)),
        templates=None if templates is None else read_templates(_beside(templates, TEMPLATES, path)),
        class_map=_class_map(told, path),
        metric=_metric(told, path),
        vocabulary="imagenet" if classnames == "imagenet" else "",
    )
    root = _text(told, "root", path)
    if root is None:
        raise SuiteError(f"{path}: the key 'root' is missing; expected the folder that holds the images.")
    return open_folder(path.parent / root, wishes)


def _read(path: Path) -> Mapping[str, object]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: is no TOML: {error}.") from error
    for key in told:
        if key not in KEYS:
            near = get_close_matches(key, KEYS)
            meant = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(KEYS)}."
            raise SuiteError(f"{path}: unknown key {key!r}. {meant}")
    return told


def _text(told: Mapping[str, object], key: str, path: Path) -> str | None:
    value = told.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise SuiteError(f"{path}: {key!r} should be a text, found {value!r}.")
    return value


def _words(told: Mapping[str, object], key: str, path: Path) -> str | tuple[str, ...] | None:
    """What `key` says: the name of a file or of a known list, or a list."""
    value = told.get(key)
    if isinstance(value, list) and value and all(isinstance(entry, str) and entry for entry in value):
        return tuple(value)
    if value is not None and (not isinstance(value, str) or not value):
        raise SuiteError(f"{path}: {key!r} should be a list of texts or the name of a file, found {value!r}.")
    return value


def _beside(words: str | tuple[str, ...], known: Collection[str], path: Path) -> Path | str | tuple[str, ...]:
    """Names of files are relative to the TOML file."""
    return path.parent / words if isinstance(words, str) and words not in known else words


def _class_map(told: Mapping[str, object], path: Path) -> dict[str, str | int]:
    value = told.get("class_map", {})
    if not isinstance(value, dict) or ("class_map" in told and not value):
        raise SuiteError(f"{path}: 'class_map' should be a table of folders and their classes, found {value!r}.")
    for folder, target in value.items():
        if isinstance(target, bool) or not isinstance(target, (str, int)):
            raise SuiteError(f"{path}: class_map gives {folder!r} {target!r}; expected a class's name or number.")
        if isinstance(target, int) and "classnames" not in told:
            raise SuiteError(
                f"{path}: class_map gives {folder!r} the number {target}; numbers need 'classnames' to count."
            )
    return value


def _metric(told: Mapping[str, object], path: Path) -> Metric:
    value = told.get("metric", "top-1")
    for kind in METRICS:
        if value == kind:
            return Metric(kind)
    raise SuiteError(f"{path}: 'metric' is {value!r}; expected one of {', '.join(METRICS)}.")

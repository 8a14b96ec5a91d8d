"""A user's own data set: a folder or a table of images, described further by an optional TOML file.

    root = "images"                  # a folder or a CSV file (`own_folders`); relative to this file
    title = "Animals"                # in tables; the file's name otherwise
    classnames = ["cat", "dog"]      # or a file with one per line, or "imagenet"
    templates = "prompts.txt"        # or a list, or "openai", "simple", "plain"
    metric = "mean-per-class"        # or "top-1", "macro-f1"
    part = "validation"              # the part to open, whatever it is opened for
    numbers = "from-one"             # folders 1, 2, 3 ... are classes in this order; or "as-text", as in ImageFolder
    label = "fine_label"             # the column of labels of parquet files
    incomplete = "leave-out"         # samples without an image or a label
    [class_map]                      # folders to evaluate, with their class by name or number
    siamese = "cat"
    poodle = 1

This module knows nothing of the data sets that the catalogue names.
"""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, TypeGuard

from mergekit_wise.datasets.class_names import CLASSNAMES, TEMPLATES, read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.own_folders import Description, Numbers, open_folder
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean

KEYS = (
    *("root", "title", "classnames", "templates", "class_map", "metric"),
    *("part", "numbers", "label", "incomplete"),
)
"""The keys that a TOML file may have."""

METRICS: tuple[Literal["top-1", "mean-per-class", "macro-f1"], ...] = ("top-1", "mean-per-class", "macro-f1")

_NUMBERS: tuple[Numbers, ...] = ("from-zero", "from-one", "as-text")


def open_path(path: Path, part: str = "test") -> Dataset:
    """Open the user's own data set at `path`: a TOML file, or what `open_folder` takes. Raises SuiteError."""
    return open_toml(path, part) if path.suffix == ".toml" and path.is_file() else open_folder(path, None, part)


def open_toml(path: Path, part: str = "test") -> Dataset:
    """Open the data set that the TOML file `path` describes; its name is the file's.

    Raises SuiteError for a key or a value that is wrong, naming both.
    """
    table = _read(path)
    classnames, templates = (_texts(table, key, path) for key in ("classnames", "templates"))
    title = _text(table, "title", path)
    description = Description(
        name=path.stem,
        title=title or path.stem,
        classnames=None if classnames is None else read_classnames(_relative_to(path, classnames, CLASSNAMES)),
        templates=None if templates is None else read_templates(_relative_to(path, templates, TEMPLATES)),
        class_map=_class_map(table, path),
        metric=_metric(table, path),
        vocabulary="imagenet" if classnames == "imagenet" else "",
        part=_text(table, "part", path) or "",
        numbers=_numbers(table, path),
        label=_text(table, "label", path) or "",
        leave_out_incomplete=_incomplete(table, path),
    )
    root = _text(table, "root", path)
    if root is None:
        raise SuiteError(f"{path}: the key 'root' is missing; expected the folder that holds the images.")
    return open_folder(path.parent / root, description, part)


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


def _relative_to(path: Path, source: str | tuple[str, ...], known: Collection[str]) -> Path | str | tuple[str, ...]:
    """Resolve the name of a file relative to the TOML file; lists and known names stay as they are."""
    return path.parent / source if isinstance(source, str) and source not in known else source


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


def _numbers(table: Mapping[str, object], path: Path) -> Numbers | None:
    value = table.get("numbers")
    for kind in _NUMBERS:
        if value == kind:
            return kind
    if value is None:
        return None
    raise SuiteError(f"{path}: 'numbers' is {value!r}; expected one of {', '.join(_NUMBERS)}.")


def _incomplete(table: Mapping[str, object], path: Path) -> bool:
    value = table.get("incomplete", "error")
    if value not in ("error", "leave-out"):
        raise SuiteError(f"{path}: 'incomplete' is {value!r}; expected error or leave-out.")
    return value == "leave-out"

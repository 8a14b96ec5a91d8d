"""A user's own data set: a folder or a table of images, described further by an optional TOML file.

    root = "images"                  # a folder or a CSV file (`own_folders`), relative to this file; or an address
    title = "Animals"                # in tables; the file's name otherwise
    classnames = ["cat", "dog"]      # or a file with one per line, or "imagenet"
    templates = "prompts.txt"        # or a list, or "openai", "simple", "plain"
    metric = "mean-per-class"        # or "top-1", "macro-f1", "worst-group"
    groups = "metadata.csv:place"    # the group of each image: a column of a table, see `annotations`
    labels = "real.json"             # all right classes of each image, see `annotations`
    expected = 5000                  # images in the complete data set
    part = "validation"              # the part to open, whatever it is opened for
    numbers = "from-one"             # folders 1, 2, 3 ... are classes in this order; or "as-text", as in ImageFolder
    label = "fine_label"             # the column of labels of parquet files
    incomplete = "leave-out"         # samples without an image or a label
    [class_map]                      # folders to evaluate, with their class by name or number
    siamese = "cat"
    poodle = 1

A table [data.NAME] of a suite (`suite_file`) has the same keys. In place of `root`, a table of a data set that is
looked for under the data folder has

    places = ["PACS/photo"]          # folders under the data folder, the usual one first
    hint = "..."                     # what to download
    verified = false                 # the number in `expected` is not yet confirmed by the data set's own files

This module knows nothing of the data sets that the catalogue names.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeGuard

from mergekit_wise.datasets.addresses import is_address
from mergekit_wise.datasets.annotations import with_groups, with_labels
from mergekit_wise.datasets.class_names import CLASSNAMES, TEMPLATES, read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.own_folders import Description, Numbers, open_folder, open_remote
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean

KEYS = (
    *("root", "title", "classnames", "templates", "class_map", "metric", "groups", "labels", "expected"),
    *("part", "numbers", "label", "incomplete"),
)
"""The keys that a TOML file with one data set may have."""

PLACE_KEYS = ("places", "hint", "verified")
"""Further keys of a data set that is looked for under the data folder, in place of `root`."""

METRICS: tuple[Literal["top-1", "mean-per-class", "macro-f1", "worst-group"], ...] = (
    "top-1",
    "mean-per-class",
    "macro-f1",
    "worst-group",
)

_NUMBERS: tuple[Numbers, ...] = ("from-zero", "from-one", "as-text")
_PARTS = ("test", "train")


def open_path(path: Path, part: str = "test") -> Dataset:
    """Open the user's own data set at `path`: a TOML file, or what `open_folder` takes. Raises SuiteError."""
    return open_toml(path, part) if path.suffix == ".toml" and path.is_file() else open_folder(path, None, part)


def open_toml(path: Path, part: str = "test") -> Dataset:
    """Open the data set that the TOML file `path` describes; its name is the file's.

    Raises SuiteError for a key or a value that is wrong, naming both.
    """
    return open_table(read_toml(path), path, path.stem, str(path), part)


def open_table(table: Mapping[str, object], path: Path, name: str, where: str, part: str) -> Dataset:
    """Open the `part`, "train" or "test", of the data set `name` that a table of the TOML file `path` describes.

    Raises SuiteError for a key or a value that is wrong; `where` names the table in messages.
    """
    require_keys(table, KEYS, where)
    root = text_of(table, "root", where)
    if root is None:
        raise SuiteError(f"{where}: the key 'root' is missing; expected the folder that holds the images.")
    if is_address(root):
        return _open_root(table, root, path, name, where, part)
    folder = path.parent / Path(root).expanduser()
    if not folder.exists():
        raise SuiteError(f"{where}: root: {folder}: no such folder. Paths are relative to the TOML file.")
    return _open_root(table, folder, path, name, where, part)


def entry_of(table: Mapping[str, object], path: Path, name: str, where: str) -> Entry:
    """The data set `name` that a table of the suite `path` describes, by its `root` or by its `places`.

    Keys and the values that need no images are checked now, the others when it is opened. Raises SuiteError.
    """
    require_keys(table, (*KEYS, *PLACE_KEYS), where)
    title, expected = text_of(table, "title", where) or name, _expected(table, where)
    if "root" in table:
        if extra := [key for key in PLACE_KEYS if key in table]:
            raise SuiteError(f"{where}: {extra[0]!r} is for a data set with 'places', and this one has 'root'.")
        find, find_train = (partial(_find_root, table, path, name, where, part) for part in _PARTS)
        return Entry(name, title, find, (), expected, "", find_train=find_train)
    places = _texts(table, "places", where)
    if places is None:
        raise SuiteError(f"{where}: the key 'root' is missing; expected the folder that holds the images.")
    verified = table.get("verified", True)
    if not isinstance(verified, bool):
        raise SuiteError(f"{where}: 'verified' should be true or false, found {verified!r}.")
    hint = text_of(table, "hint", where) or ""
    find_place, find_place_to_train = (partial(_find_place, table, path, name, where, part) for part in _PARTS)
    return Entry(
        name,
        title,
        find_place,
        (places,) if isinstance(places, str) else places,
        expected,
        hint,
        verified=verified,
        find_train=find_place_to_train,
    )


def _find_root(table: Mapping[str, object], path: Path, name: str, where: str, part: str, root: Path) -> Dataset:
    """The functions of an entry with its own folder, wherever the data folder `root` is."""
    return open_table(table, path, name, where, part)


def _find_place(
    table: Mapping[str, object], path: Path, name: str, where: str, part: str, root: Path
) -> Dataset | None:
    """The data set in the first of its places under the data folder `root` that exists; None if there is none."""
    places = _texts(table, "places", where)
    names = (places,) if isinstance(places, str) else places or ()
    folder = next((root / place for place in names if (root / place).exists()), None)
    return None if folder is None else _open_root(table, folder, path, name, where, part)


def _open_root(
    table: Mapping[str, object], folder: Path | str, path: Path, name: str, where: str, part: str
) -> Dataset:
    """The data set in `folder`, or at an address, with all else that the table states."""
    classnames, templates = (_texts(table, key, where) for key in ("classnames", "templates"))
    groups, labels = text_of(table, "groups", where), text_of(table, "labels", where)
    notes: list[str] = []
    names = None if classnames is None else read_classnames(_relative_to(path, classnames, CLASSNAMES), notes.append)
    prompts = None if templates is None else read_templates(_relative_to(path, templates, TEMPLATES), notes.append)
    description = Description(
        name=name,
        title=text_of(table, "title", where) or name,
        classnames=names,
        templates=prompts,
        class_map=_class_map(table, where),
        metric=_metric(table, where),
        vocabulary="imagenet" if classnames == "imagenet" else "",
        named_folders="places" in table and classnames is not None,
        part=text_of(table, "part", where) or "",
        numbers=_numbers(table, where),
        label=text_of(table, "label", where) or "",
        leave_out_incomplete=_incomplete(table, where),
    )
    dataset = open_remote(folder, description) if isinstance(folder, str) else open_folder(folder, description, part)
    if labels is not None:
        dataset = with_labels(dataset, path.parent / labels)
    if groups is not None:
        dataset = with_groups(dataset, groups, path.parent)
    elif dataset.metric.kind == "worst-group":
        raise SuiteError(
            f"{where}: metric = 'worst-group' needs the key 'groups', as in groups = \"metadata.csv:place\"."
        )
    expected = _expected(table, where) if table.get("verified", True) else None
    return replace(dataset, expected=expected, notes=(*dataset.notes, *notes))


def read_toml(path: Path) -> Mapping[str, object]:
    """The content of a TOML file. Raises SuiteError if it cannot be read or is none."""
    refuse_web_page(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: is not valid TOML: {error}.") from error


def require_keys(table: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Raise SuiteError, naming `where`, for the first key that is not among the `known` ones."""
    for key in table:
        if key not in known:
            suggestion = did_you_mean(key, known, 1) or f" Known keys: {', '.join(known)}."
            raise SuiteError(f"{where}: unknown key {key!r}.{suggestion}")


def text_of(table: Mapping[str, object], key: str, where: str) -> str | None:
    """The string under `key`; None if there is none. Raises SuiteError, naming `where`, for another value."""
    value = table.get(key)
    if value is not None and not is_text(value):
        raise SuiteError(f"{where}: {key!r} should be a string, found {value!r}.")
    return value


def _texts(table: Mapping[str, object], key: str, where: str) -> str | tuple[str, ...] | None:
    """The value of `key`: the name of a file or of a known list, or a list."""
    value = table.get(key)
    if isinstance(value, list) and value and all(map(is_text, value)):
        return tuple(value)
    if value is not None and not is_text(value):
        raise SuiteError(f"{where}: {key!r} should be a list of strings or the name of a file, found {value!r}.")
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a text that can be a name or a path."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _relative_to(
    path: Path, source: str | tuple[str, ...], known: Mapping[str, Callable[[], tuple[str, ...]]]
) -> Path | tuple[str, ...]:
    """Resolve the name of a file relative to the TOML file, and the name of a known list whatever lies there."""
    if not isinstance(source, str):
        return source
    return known[source]() if source in known else path.parent / source


def _class_map(table: Mapping[str, object], where: str) -> dict[str, str | int]:
    value = table.get("class_map", {})
    if not isinstance(value, dict) or ("class_map" in table and not value):
        raise SuiteError(f"{where}: 'class_map' should be a table of folders and their classes, found {value!r}.")
    for folder, target in value.items():
        if isinstance(target, bool) or not isinstance(target, (str, int)):
            raise SuiteError(
                f"{where}: class_map gives {folder!r} the class {target!r}; expected the name or the number of a class."
            )
        if isinstance(target, int) and "classnames" not in table:
            raise SuiteError(
                f"{where}: class_map gives {folder!r} the number {target}, which needs the key 'classnames'."
            )
    return value


def _metric(table: Mapping[str, object], where: str) -> Metric:
    value = table.get("metric", "worst-group" if "groups" in table else "top-1")
    for kind in METRICS:
        if value == kind:
            return Metric(kind)
    raise SuiteError(f"{where}: 'metric' is {value!r}; expected one of {', '.join(METRICS)}.")


def _expected(table: Mapping[str, object], where: str) -> int | None:
    value = table.get("expected")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise SuiteError(f"{where}: 'expected' should be the number of images, found {value!r}.")
    return value


def _numbers(table: Mapping[str, object], where: str) -> Numbers | None:
    value = table.get("numbers")
    for kind in _NUMBERS:
        if value == kind:
            return kind
    if value is None:
        return None
    raise SuiteError(f"{where}: 'numbers' is {value!r}; expected one of {', '.join(_NUMBERS)}.")


def _incomplete(table: Mapping[str, object], where: str) -> bool:
    value = table.get("incomplete", "error")
    if value not in ("error", "leave-out"):
        raise SuiteError(f"{where}: 'incomplete' is {value!r}; expected error or leave-out.")
    return value == "leave-out"

"""A data set in a table: a CSV or TSV file with a column of paths and a column of labels.

Paths are relative to the table's folder. Labels are class numbers or names; names are numbered in the order of texts,
as class folders are, over all parts of the table. This module knows nothing of how folders are searched.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.csv_rows import read_table
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.layouts import Found, open_list
from mergekit_wise.datasets.splits import choose_part, role_of
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural, shown

ENDINGS = (".csv", ".tsv")

PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "img_path",
)
LABEL_COLUMNS = (
    "label",
    "class",
    "y",
    "target",
    "label_id",
    "class_id",
    "category",
    "class_name",
    "label_name",
    "classname",
)
_NAMES = ("class_name", "label_name", "classname", "class", "category", "name")
_SPLITS = ("split", "subset", "partition", "part", "set", "fold")
_MAX_CLASSES = 100_000

Row = Sequence[str]
"""The cells of a line."""


def open_csv(
    path: Path,
    part: str = "test",
    classnames: tuple[str, ...] | None = None,
    *,
    from_one: bool = False,
    leave_out_incomplete: bool = False,
) -> Found:
    """The images that the table at `path` lists, of one `part` if it has a column for it (see `choose_part`).

    `classnames` give the numbers of labels that are names; without them the names are sorted. `from_one` says that the
    first class has the number 1. Rows whose image does not exist are an error unless they are to be left out.

    Raises SuiteError if a column is missing, if a label is not clear, or if images are missing.
    """
    header, rows = _read(path)
    at_path, at_label = (
        find_column(header, PATH_COLUMNS, path, "paths"),
        find_column(header, LABEL_COLUMNS, path, "labels"),
    )
    labels, names = _labels(path, [row[at_label] for row in rows], classnames, from_one)
    if names is None and classnames is None:
        names = _names_of(header, at_label, rows, labels)
    kept, notes = rows_of_part(
        path, header, rows, part, lambda name: f'set part = "{name}" in a TOML file with root = "{path}"'
    )
    paths = [relative_path(rows[row][at_path], path.parent) for row in kept.tolist()]
    _require_one_label(path, paths, labels[kept].tolist())
    count = len(classnames or names or ()) or int(labels.max()) + 1
    found_images, indices = open_list(path.parent, paths, labels[kept], count)
    if missing := len(paths) - len(indices):
        example = paths[sorted(set(range(len(paths))) - set(indices.tolist()))[0]]
        if not leave_out_incomplete:
            raise SuiteError(
                f"{path}: {plural(missing, 'image')} of {len(paths):,} do not exist, such as {example}, relative to "
                f'{path.parent}. Unpack them there, or leave them out with incomplete = "leave-out" in a TOML file.'
            )
        notes = (*notes, f"left out {plural(missing, 'row')} whose image does not exist, such as {example}")
    if repeated := len(paths) - len(set(paths)):
        notes = (*notes, f"{plural(repeated, 'row')} of images that are listed more than once, and count again")
    return replace(found_images, classnames=names or classnames, notes=(*found_images.notes, *notes))


def rows_of_part(
    path: Path, header: Sequence[str], rows: Sequence[Row], part: str, how: Callable[[str], str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The numbers of a table's rows of one `part`, int64 [n], and notes on the choice; all rows without such a column.

    `how` is as for `choose_part`. Raises SuiteError if the part is not clear.
    """
    at = next((header.index(name) for name in _SPLITS if name in header), None)
    if at is None:
        return np.arange(len(rows)), ()
    if all(role_of(row[at]) for row in rows):
        choice = choose_part(sorted({row[at] for row in rows}), part, path, how)
        return np.flatnonzero([row[at] == choice.name for row in rows]), choice.notes
    if header[at] == "split":
        found = sorted({row[at] for row in rows if not role_of(row[at])})
        raise SuiteError(
            f"{path}: its column 'split' should hold train, validation or test; found {listed(map(shown, found), 3)}."
        )
    return np.arange(len(rows)), (f"its column {header[at]!r} names no parts and is not used",)


def find_column(header: Sequence[str], known: Sequence[str], path: Path, content: str) -> int:
    """The position of the first of the `known` names among the columns. Raises SuiteError if the table has none."""
    found = [name for name in known if name in header]
    if not found:
        raise SuiteError(
            f"{path}: expected a column of {content}, called {', '.join(known[:-1])} or {known[-1]}; found the columns "
            f"{listed(map(shown, header)) or 'none'}. Rename one of them."
        )
    return header.index(found[0])


def relative_path(text: str, folder: Path) -> str:
    """The path in a table's cell, relative to `folder`, with slashes."""
    path = text.replace("\\", "/")
    return os.path.relpath(path, folder.resolve()) if path.startswith("/") else os.path.normpath(path)


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The names of the columns, in lower case, and the rows; a table of paths and labels may lack the names."""
    header, rows = read_table(path)
    if len(header) == 2 and header[0].lower().endswith(EXTENSIONS):
        return ["path", "label"], [header, *rows]
    if not rows:
        raise SuiteError(f"{path}: expected a header and a line for each image, found no such line.")
    return [name.casefold() for name in header], [*rows]


def _labels(
    path: Path, texts: list[str], classnames: tuple[str, ...] | None, from_one: bool
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """The class numbers, int64 [N], and the class names if the labels are names."""
    if "" in texts:
        raise SuiteError(f"{path}: its row {texts.index('') + 1} has no label.")
    if all(text.isascii() and text.isdecimal() and len(text) < 10 for text in texts):
        numbers = np.array([int(text) for text in texts], dtype=np.int64) - from_one
        _require_numbers(path, numbers, classnames, from_one)
        return numbers, None
    names = classnames or tuple(sorted(set(texts)))
    number_of = {name: number for number, name in enumerate(names)}
    if unknown := sorted(set(texts) - number_of.keys()):
        raise SuiteError(
            f"{path}: {plural(len(unknown), 'label')} not among the {plural(len(names), 'class name')}: "
            f"{listed(map(repr, unknown), 3)}."
        )
    return np.array([number_of[text] for text in texts], dtype=np.int64), names


def _require_numbers(
    path: Path, numbers: NDArray[np.int64], classnames: tuple[str, ...] | None, from_one: bool
) -> None:
    low, high = int(numbers.min()), int(numbers.max())
    if from_one and low < 0:
        raise SuiteError(f'{path}: numbers = "from-one" means labels from 1 on, found 0.')
    if high >= _MAX_CLASSES:
        raise SuiteError(f"{path}: expected class numbers below {_MAX_CLASSES:,}, found {high:,}.")
    # The class 0 may lack an image, but classes that are all there are numbered from 1.
    if low == 1 and not from_one and (classnames is None or high == len(classnames)):
        raise SuiteError(
            f"{path}: its labels are numbers from 1 to {high}, and classes are numbered from 0. If 1 is the first "
            'class, set numbers = "from-one" in a TOML file; if no image has the class 0, list the class names there.'
        )


def _names_of(header: list[str], at_label: int, rows: list[Row], labels: NDArray[np.int64]) -> tuple[str, ...] | None:
    """The class names in another column, if it has one name for each number, and none twice."""
    at = next((header.index(name) for name in _NAMES if name in header and header.index(name) != at_label), None)
    if at is None:
        return None
    pairs = sorted({(number, row[at]) for number, row in zip(labels.tolist(), rows, strict=True)})
    names = tuple(name for _, name in pairs)
    complete = [number for number, _ in pairs] == list(range(len(pairs)))
    return names if complete and len(set(names)) == len(names) and all(names) else None


def _require_one_label(path: Path, paths: list[str], labels: list[int]) -> None:
    label_of = dict(zip(paths, labels, strict=True))
    for image, label in zip(paths, labels, strict=True):
        if label_of[image] != label:
            count = Counter(paths)[image]
            raise SuiteError(
                f"{path}: {image} stands in {plural(count, 'row')} with different labels. Keep one of them."
            )

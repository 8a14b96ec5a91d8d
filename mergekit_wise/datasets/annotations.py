"""What a file beside the images states about each of them: its group, or all its right classes.

Images are found in the file by their path or name. An image that the file lacks is an error: its group or its classes
would be a guess. This module knows no model and no metric's formula.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.csv_rows import read_table
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.subsets import subset
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean, listed, plural, shown


def with_groups(dataset: Dataset, source: str, folder: Path) -> Dataset:
    """`dataset` with groups of images, for the metric worst-group and the accuracy of each group.

    Args:
        dataset: an opened data set.
        source: ``metadata.csv:background``: a table with a header and a row per image, and one of its columns, whose
            values are the groups; ``metadata.csv:y,place`` for each combination of two columns. Some other column of
            the table holds the paths or the names of the images. Images with an empty value are in no group.
        folder: what the table's path is relative to.

    Raises SuiteError if the table, a column or the row of an image is missing, or if a row is not clear.
    """
    file, colon, text = source.rpartition(":")
    columns = [column.strip() for column in text.split(",")]
    if not colon or not file or not all(columns):
        raise SuiteError(f"groups = {source!r}: expected a table and one of its columns, as in metadata.csv:place.")
    path = folder / file
    header, rows = read_table(path)
    if len(header) < 2 or not rows:
        raise SuiteError(f"{path}: expected a table with a header, a column of image files, and a row per image.")
    if absent := [column for column in columns if column not in header]:
        suggestion = did_you_mean(absent[0], header, 1) or f" Its columns: {listed(header)}."
        raise SuiteError(f"{path}: has no column {absent[0]!r}.{suggestion}")
    row_of = _rows_of_images(dataset, path, header, rows, [header.index(column) for column in columns])
    cells = [[rows[row][header.index(column)] for column in columns] for row in row_of.tolist()]
    names = np.array([_group(columns, values) for values in cells])
    groups = {str(name): np.flatnonzero(names == name).astype(np.int64) for name in sorted(set(names.tolist()) - {""})}
    if not groups:
        raise SuiteError(f"{path}: the column {columns[0]!r} is empty for every image.")
    notes = [f"groups from {path.name}: {', '.join(f'{name} ({len(rows)})' for name, rows in groups.items())}."]
    if ungrouped := int((names == "").sum()):
        notes.append(f"{plural(ungrouped, 'image')} without a value in {text!r} of {path.name}: in no group.")
    return replace(dataset, metric=replace(dataset.metric, groups=groups), notes=(*dataset.notes, *notes))


def with_labels(dataset: Dataset, path: Path) -> Dataset:
    """`dataset` with several right classes an image, any of which counts as right, in place of its labels.

    Args:
        dataset: an opened data set.
        path: a JSON file: an object with the class or the list of classes of each image by its path or name, or a list
            of these in the order of the images' names, as ImageNet-ReaL's. Classes are numbers or names. Images
            without a class are left out, and counted in a note.

    Raises SuiteError if the file is damaged, lacks an image, or holds a class that the data set does not have.
    """
    content = _json(path)
    notes = []
    if isinstance(content, dict):
        names = list(content)
        row_of = _require_all(dataset, path, _matches(_parts(dataset), _cells(names)))
        entries = [content[names[row]] for row in row_of.tolist()]
    else:
        entries = [content[place] for place in _in_order_of_names(dataset, path, len(content)).tolist()]
        notes.append(f"the {len(content):,} entries of {path.name} are taken in the order of the images' names.")
    label_of: dict[int | str, int] = {label: label for label in range(len(dataset.classnames))}
    label_of |= {name: label for label, name in reversed(list(enumerate(dataset.classnames)))}
    accepted = [frozenset(_labels(entry, label_of, dataset, index, path)) for index, entry in enumerate(entries)]
    kept = np.array([index for index, labels in enumerate(accepted) if labels], np.int64)
    if not len(kept):
        raise SuiteError(f"{path}: gives no image a class.")
    if left_out := len(accepted) - len(kept):
        notes.append(f"{plural(left_out, 'image')} without a class in {path.name}: left out.")
    chosen = subset(dataset, kept) if left_out else dataset
    # The label is one of the right classes: an image's folder may not be.
    labels = [_one(accepted[row], label) for row, label in zip(kept.tolist(), chosen.labels.tolist(), strict=True)]
    metric = Metric(chosen.metric.kind, chosen.metric.groups, tuple(accepted[row] for row in kept.tolist()))
    return replace(chosen, labels=np.array(labels, np.int64), metric=metric, notes=(*dataset.notes, *notes))


def _one(accepted: frozenset[int], label: int) -> int:
    return label if label in accepted else min(accepted)


def _labels(
    entry: object, label_of: Mapping[int | str, int], dataset: Dataset, index: int, path: Path
) -> Iterator[int]:
    for each in entry if isinstance(entry, list) else [entry]:
        if isinstance(each, bool) or not isinstance(each, int | str) or each not in label_of:
            raise SuiteError(
                f"{path}: gives {Path(dataset.sample(index)).name} the class {shown(repr(each))}, which is not among "
                f"the {plural(len(dataset.classnames), 'class')} of {dataset.title} (numbers from 0 to "
                f"{len(dataset.classnames) - 1}, or {listed(dataset.classnames, 3)})."
            )
        yield label_of[each]


def _in_order_of_names(dataset: Dataset, path: Path, entries: int) -> NDArray[np.int64]:
    """For each image its place among the names in order, int64 [N]."""
    names = [parts[-1] for parts in _parts(dataset)]
    if entries != len(names) or len(set(names)) < len(names):
        found = f"{entries:,} entries" if entries != len(names) else "images of the same name in several folders"
        raise SuiteError(
            f"{path}: a list has one entry for each of the {len(names):,} images of {dataset.title} in the order of "
            f"their names; found {found}. Write an object with the classes of each image by its name."
        )
    places = np.empty(len(names), np.int64)
    places[np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)] = np.arange(len(names))
    return places


def _group(columns: Sequence[str], values: Sequence[str]) -> str:
    """The name of a group; empty if a value is."""
    if not all(values):
        return ""
    if len(columns) == 1 and not values[0].isdecimal():
        return values[0]
    return ", ".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))


def _rows_of_images(
    dataset: Dataset, path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], used: Sequence[int]
) -> NDArray[np.int64]:
    """The row of each image, int64 [N], by the column that holds the images' paths or names."""
    parts = _parts(dataset)
    found = {}
    for column, name in enumerate(header):
        cells = _cells([row[column] for row in rows], [tuple(row[place] for place in used) for row in rows])
        found[name] = _matches(parts, cells)
    best = max(found, key=lambda name: (int((found[name] >= 0).sum()), int((found[name] != _NONE).sum())))
    if not (found[best] != _NONE).any():
        raise SuiteError(
            f"{path}: none of its columns holds the paths or names of the images of {dataset.title}, such as "
            f"{'/'.join(parts[0][-2:])}. Its columns: {listed(header)}."
        )
    return _require_all(dataset, path, found[best])


def _require_all(dataset: Dataset, path: Path, row_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """`row_of`, if every image has a row."""
    twice = np.flatnonzero(row_of == _UNCLEAR)
    if len(twice):
        raise SuiteError(
            f"{path}: {dataset.sample(int(twice[0]))} fits several entries, or an entry several images. Give paths "
            "relative to the folder of the images instead of names."
        )
    absent = np.flatnonzero(row_of < 0)
    if len(absent):
        raise SuiteError(
            f"{path}: has no entry for {len(absent):,} of the {plural(len(row_of), 'image')} of {dataset.title}, such "
            f"as {dataset.sample(int(absent[0]))}."
        )
    return row_of


_NONE, _UNCLEAR = -1, -2

Parts = tuple[str, ...]


def _parts(dataset: Dataset) -> list[Parts]:
    """The parts of each image's path."""
    return [PurePosixPath(dataset.sample(index).replace("\\", "/")).parts for index in range(len(dataset))]


def _cells(texts: Sequence[str], values: Sequence[object] | None = None) -> dict[Parts, int]:
    """Rows by the parts of the path in each; -2 where the same path has several `values`."""
    cells: dict[Parts, int] = {}
    for row, text in enumerate(texts):
        parts = tuple(part for part in text.strip().replace("\\", "/").split("/") if part not in ("", "."))
        other = cells.setdefault(parts, row)
        if other != row and (values is None or other == _UNCLEAR or values[other] != values[row]):
            cells[parts] = _UNCLEAR
    return cells


def _matches(images: Sequence[Parts], cells: Mapping[Parts, int]) -> NDArray[np.int64]:
    """The row of each image by the longest end of its path that has one, int64 [N]; -1 for none, -2 if not clear."""
    lengths = sorted({len(parts) for parts in cells if parts}, reverse=True)
    ends = [next((parts[-n:] for n in lengths if len(parts) >= n and parts[-n:] in cells), None) for parts in images]
    uses: dict[Parts | None, int] = {}
    for end in ends:
        uses[end] = uses.get(end, 0) + 1
    rows = [_NONE if end is None else _UNCLEAR if uses[end] > 1 else cells[end] for end in ends]
    return np.array(rows, np.int64)


def _json(path: Path) -> dict[str, object] | list[object]:
    refuse_web_page(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SuiteError(f"{path}: no such file of labels; paths are relative to the TOML file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: expected labels in JSON: {error}.") from error
    if not isinstance(content, dict | list) or not content:
        raise SuiteError(f"{path}: expected an object or a list with the classes of each image.")
    return content

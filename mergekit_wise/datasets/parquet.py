"""Copies of Hugging Face data sets: parquet files as on the hub, or arrow files as ``save_to_disk`` writes them.

Files are called after their part: ``data/validation-00000-of-00014.parquet``. The images of a row group are read
together, when the first of them is needed. The package pyarrow is optional. This module knows nothing of class folders.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.fingerprint import file_identity
from mergekit_wise.datasets.layouts import Found
from mergekit_wise.datasets.splits import choose_part, role_in, role_of
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

ENDINGS = (".parquet", ".arrow")

_IMAGES = ("image", "img", "jpg", "png", "picture")
_LABELS = ("label", "labels", "cls", "class", "target", "y")
_NUMBERED = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.(?:parquet|arrow)")
_OLDEST = (14, 0, 1)
"""The first version of pyarrow that does not execute what a file holds (CVE-2023-47248)."""

_MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class ParquetImages:
    """Images by number, in the groups of rows that are read together.

    `file`, `group` and `row` (in the group) are int32 [N], `sizes` int64 [N]; `column` holds the images.
    """

    paths: tuple[str, ...]
    column: str
    file: NDArray[np.int32]
    group: NDArray[np.int32]
    row: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. Raises SuiteError, naming the file and the row, if it cannot be read or decoded."""
        path = self.paths[int(self.file[index])]
        cell = _group(_opened(path), self.column, int(self.group[index]))[int(self.row[index])].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise SuiteError(
                f"{self.sample(index)}: holds no bytes of an image, but only a path. Save the data set with its images "
                "by the library datasets: push_to_hub embeds them."
            )
        return decode(data, self.sample(index))

    def sample(self, index: int) -> str:
        """The file, the group of rows and the row in it, separated by colons."""
        return f"{self.paths[int(self.file[index])]}:{self.group[index]}:{self.row[index]}"

    def size(self, index: int) -> int:
        """The image's share of the size of its group of rows, in bytes: single sizes would take reading all images."""
        return int(self.sizes[index])


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table: its name, and the class names if its numbers stand for classes."""

    name: str
    classnames: tuple[str, ...] | None = None


@dataclass(slots=True)
class _Rows:
    """What is known of the rows of a part before an image is read."""

    labels: list[Any] = field(default_factory=list)
    file: list[NDArray[np.int32]] = field(default_factory=list)
    group: list[NDArray[np.int32]] = field(default_factory=list)
    row: list[NDArray[np.int32]] = field(default_factory=list)
    sizes: list[NDArray[np.int64]] = field(default_factory=list)


def data_files(folder: Path) -> tuple[Path, ...]:
    """The parquet or arrow files in `folder` or in ``data`` below it, sorted; without those that datasets caches."""
    for place in (folder, folder / "data"):
        inside = sorted(place.iterdir()) if place.is_dir() else []
        for ending in ENDINGS:
            if found := [p for p in inside if p.suffix == ending and not p.name.startswith((".", "cache-", "tmp"))]:
                return tuple(found)
    return ()


def open_parquet(
    files: Sequence[Path], where: Path, part: str = "test", classnames: tuple[str, ...] | None = None, label: str = ""
) -> Found:
    """The images of one `part` of the data set in `files` (see `choose_part`).

    `label` is the column of labels, where it is not clear. Labels that are names are numbered in the order of
    `classnames`, or else of texts, over all parts.

    Raises SuiteError if pyarrow is missing, a file is damaged or missing, or if columns, labels or part are not clear.
    """
    _require_pyarrow(where)
    features = _features(files[0], where)
    image, label_column = _image_column(files[0], features), _label_column(files[0], features, label)
    by_part: dict[str, list[Path]] = {}
    for file in files:
        by_part.setdefault(role_in(file.name), []).append(file)
    labels_of = {name: _labels_in(paths, label_column.name) for name, paths in by_part.items()}
    hidden = [name for name, labels in labels_of.items() if labels and all(value in (-1, None) for value in labels)]
    notes: tuple[str, ...] = ()
    # A path that names a part, or one file, is the user's own choice.
    if len(by_part) == 1 and ("" in by_part or where.is_file() or role_of(where.resolve().name)):
        (chosen,) = by_part
    else:
        names = [name for name in by_part if name not in hidden]
        if "" in by_part or not names:
            raise SuiteError(f"{where}: the part of {by_part.get('', files)[0].name} is unclear or has no labels.")
        chosen, notes = choose_part(
            names, part, where, lambda name: f'set part = "{name}" in a TOML file with root = "{where}"'
        )
        notes = (*notes, *(f"the part {name!r} has no labels" for name in hidden))
    paths = by_part[chosen]
    if not where.is_file():
        _require_all(paths)
    labels, classes = _numbers(where, labels_of[chosen], labels_of, label_column, classnames)
    images = _index(paths, image)
    return Found(labels, images.image, images.sample, images.size, str(where), classnames=classes, notes=notes)


def label_lists(files: Sequence[Path], where: Path, column: str) -> tuple[ParquetImages, list[list[Any]]]:
    """The images of all `files`, and the list of labels that `column` has of each.

    Raises SuiteError if pyarrow is missing, a file is damaged, or a row has no list of labels.
    """
    _require_pyarrow(where)
    images = _index(files, _image_column(files[0], _features(files[0], where)))
    labels = _labels_in(files, column)
    if wrong := [row for row, value in enumerate(labels) if not isinstance(value, list) or not value]:
        raise SuiteError(
            f"{images.sample(wrong[0])}: expected a list of labels in the column {column!r}, found "
            f"{str(labels[wrong[0]])[:80]}. Download it again."
        )
    return images, labels


def _require_pyarrow(where: Path) -> None:
    try:
        import pyarrow
    except ImportError:
        raise SuiteError(f"{where}: reading parquet and arrow files needs pyarrow. Run: pip install pyarrow") from None
    if tuple(int(number) for number in re.findall(r"\d+", pyarrow.__version__)[:3]) < _OLDEST:
        raise SuiteError(f"{where}: pyarrow {pyarrow.__version__} is not safe. Run: pip install --upgrade pyarrow")


def _require_all(paths: Sequence[Path]) -> None:
    """Raise SuiteError if the names count more files than there are."""
    counted = [match for path in paths if (match := _NUMBERED.search(path.name))]
    total = max((int(match[2]) for match in counted), default=0)
    if missing := sorted(set(range(total)) - {int(match[1]) for match in counted}):
        raise SuiteError(
            f"{paths[0].parent}: {plural(len(missing), 'file')} of {total} missing, such as number {missing[0]} of "
            f"{paths[0].name}'s part. Resume the download."
        )


class _File:
    """A parquet or an arrow file, by groups of rows. Raises SuiteError, naming the file, if it is damaged."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.ipc
        import pyarrow.parquet

        self.path = path
        with _errors(path):
            if path.endswith(".parquet"):
                self.parquet: Any = pyarrow.parquet.ParquetFile(path, memory_map=True)
                self.schema: Any = self.parquet.schema_arrow
                self.count = self.parquet.num_row_groups
            else:
                source = pa.memory_map(path)
                try:
                    self.batches: Any = pyarrow.ipc.open_stream(source).read_all().to_batches()
                except pa.ArrowInvalid:
                    source.seek(0)
                    self.batches = pyarrow.ipc.open_file(source).read_all().to_batches()
                self.parquet = None
                self.schema = self.batches[0].schema if self.batches else pa.schema([])
                self.count = len(self.batches)

    def column(self, name: str, group: int) -> Any:
        """The column `name` of a group of rows, as an array of pyarrow's."""
        with _errors(self.path):
            if self.parquet is not None:
                return self.parquet.read_row_group(group, columns=[name], use_threads=False).column(0)
            return self.batches[group].column(name)

    def rows(self, group: int) -> tuple[int, int]:
        """The number of rows of a group, and its size in bytes."""
        if self.parquet is not None:
            found = self.parquet.metadata.row_group(group)
            return found.num_rows, found.total_byte_size
        return self.batches[group].num_rows, self.batches[group].nbytes


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turn pyarrow's errors into SuiteError, with the name of the file."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise SuiteError(f"{path}: is damaged or of another format: {error}. Download it again.") from error


def _opened(path: str) -> _File:
    """A file as it is now."""
    return _opened_once(path, file_identity(path))


@lru_cache(maxsize=8)
def _opened_once(path: str, identity: tuple[int, ...]) -> _File:
    """A file that was replaced has another `identity`, and is opened again."""
    return _File(path)


@lru_cache(maxsize=2)
def _group(file: _File, column: str, group: int) -> Any:
    return file.column(column, group)


def _features(file: Path, where: Path) -> Mapping[str, Any]:
    """What datasets states about each column: in the file's own metadata, else in README.md."""
    metadata = _opened(str(file)).schema.metadata or {}
    try:
        stated = json.loads(metadata.get(b"huggingface", b"{}"))
        features = stated.get("info", {}).get("features", {})
    except (ValueError, AttributeError, RecursionError):
        features = {}
    if features:
        return features if isinstance(features, dict) else {}
    readmes = (place / "README.md" for place in (where, where.parent, file.parent, file.parent.parent))
    return next((dict(_of_readme(path)) for path in readmes if path.is_file()), {})


def _of_readme(path: Path) -> Iterator[tuple[str, Any]]:
    """The features that the block of YAML at the beginning of a data set's card lists, in the form of the metadata."""
    import yaml  # type: ignore[import-untyped]

    try:
        _, card, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        stated = yaml.safe_load(card)
    except (ValueError, OSError, yaml.YAMLError):
        return
    info = stated.get("dataset_info") if isinstance(stated, dict) else None
    info = info[0] if isinstance(info, list) and len(info) == 1 else info
    listed_features = info.get("features") if isinstance(info, dict) else None
    for feature in listed_features if isinstance(listed_features, list) else ():
        dtype = feature.get("dtype")
        if isinstance(dtype, dict) and isinstance(dtype.get("class_label"), dict):
            names = dtype["class_label"].get("names", {})
            ordered = names if isinstance(names, list) else [names[key] for key in sorted(names, key=int)]
            yield feature["name"], {"_type": "ClassLabel", "names": ordered}
        elif dtype == "image":
            yield feature["name"], {"_type": "Image"}


def _image_column(file: Path, features: Mapping[str, Any]) -> str:
    schema = _opened(str(file)).schema
    stated = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in schema.names]
    binary = [f.name for f in schema if str(f.type).startswith("binary") or "bytes: binary" in str(f.type)]
    for candidates in (stated, binary):
        if len(candidates) == 1:
            return str(candidates[0])
        if found := [name for name in _IMAGES if name in candidates]:
            return found[0]
    raise SuiteError(
        f"{file}: expected one column of images, called image; found the columns {listed(schema.names)}. Rename one."
    )


def _label_column(file: Path, features: Mapping[str, Any], wanted: str) -> _Column:
    names = _opened(str(file)).schema.names
    if wanted and wanted not in names:
        raise SuiteError(f"{file}: has no column {wanted!r}; found {listed(names)}.")
    stated = [n for n, feature in features.items() if feature.get("_type") == "ClassLabel" and n in names]
    common = [name for name in _LABELS if name in names]
    candidates = [wanted] if wanted else stated or common
    if len(candidates) != 1:
        found = listed(candidates) if candidates else "none"
        raise SuiteError(
            f"{file}: expected one column of labels, found {found} among the columns {listed(names)}. Choose one with "
            'label = "NAME" in a TOML file.'
        )
    classnames = features.get(candidates[0], {}).get("names")
    return _Column(candidates[0], tuple(map(str, classnames)) if classnames else None)


def _labels_in(paths: Sequence[Path], column: str) -> list[Any]:
    """The labels of all rows of some files; no image is read."""
    found: list[Any] = []
    for path in paths:
        file = _opened(str(path))
        if column not in file.schema.names:
            raise SuiteError(f"{path}: has no column {column!r}, which other files of the data set have.")
        for group in range(file.count):
            found += file.column(column, group).to_pylist()
    return found


def _numbers(
    where: Path,
    labels: list[Any],
    labels_of: Mapping[str, list[Any]],
    column: _Column,
    classnames: tuple[str, ...] | None,
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """The class numbers, int64 [N], and the class names, if there are some."""
    if not labels:
        raise SuiteError(f"{where}: expected images, found no row.")
    if absent := sum(value in (-1, None) for value in labels):
        raise SuiteError(
            f"{where}: {plural(absent, 'row')} of {len(labels):,} have no label (-1), as in a challenge. "
            'Choose another part with part = "validation" in a TOML file.'
        )
    if all(isinstance(value, str) for value in labels):
        names = classnames or tuple(sorted({value for values in labels_of.values() for value in values}))
        number_of = {name: number for number, name in enumerate(names)}
        if unknown := sorted(set(labels) - number_of.keys()):
            raise SuiteError(f"{where}: the label {unknown[0]!r} is not among the {plural(len(names), 'class name')}.")
        return np.array([number_of[value] for value in labels], dtype=np.int64), names
    if not all(isinstance(value, int) and 0 <= value < _MAX_CLASSES for value in labels):
        raise SuiteError(f"{where}: expected class numbers or names in the column {column.name!r}.")
    return np.array(labels, dtype=np.int64), column.classnames


def _index(paths: Sequence[Path], column: str) -> ParquetImages:
    rows = _Rows()
    for number, path in enumerate(paths):
        file = _opened(str(path))
        for group in range(file.count):
            count, size = file.rows(group)
            rows.file.append(np.full(count, number, np.int32))
            rows.group.append(np.full(count, group, np.int32))
            rows.row.append(np.arange(count, dtype=np.int32))
            rows.sizes.append(np.full(count, size // max(count, 1), np.int64))
    return ParquetImages(
        tuple(map(str, paths)),
        column,
        np.concatenate(rows.file),
        np.concatenate(rows.group),
        np.concatenate(rows.row),
        np.concatenate(rows.sizes),
    )

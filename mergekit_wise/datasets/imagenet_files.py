"""ImageNet as it is downloaded: validation images in one folder, and folders numbered or named in other ways.

The classes of the images are in files beside them: in the devkit, in Kaggle's ``LOC_val_solution.csv``, in Caffe's
``val.txt``, or in a text file with one WordNet id or number per line. The devkit numbers the classes from 1 to 1000 in
an order of its own, which ``meta.mat`` maps to WordNet ids.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_lemmas, imagenet_wnids
from mergekit_wise.datasets.folders import FolderImages
from mergekit_wise.datasets.layouts import Found, read_lines
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

KAGGLE = "ILSVRC/Data/CLS-LOC"
"""Where Kaggle's archive has the folders train, val and test."""

DEVKIT = "ILSVRC2012_devkit_t12"
VALIDATION = 50_000
CLASSES = 1000

_IMAGE = re.compile(r"(ILSVRC2012_val_([0-9]{8}))\.jpe?g", re.IGNORECASE)
_WNID = re.compile(r"n[0-9]{8}")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_MAX_BYTES = 1 << 24

# What scipy's reader raises on damaged files, besides an error of its own.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, NotImplementedError, zlib.error)


class _Labels(NamedTuple):
    """The file that labels come from, and the label of each image: by name or by number."""

    source: Path
    label_of: Mapping[int, int]


def is_flat(folder: Path) -> bool:
    """Whether validation images lie in `folder` itself."""
    return folder.is_dir() and any(_IMAGE.fullmatch(path.name) for path in folder.iterdir())


def open_flat(folder: Path) -> Found:
    """The validation images in `folder`, labelled by ImageNet's classes in the order of their WordNet ids.

    Raises SuiteError if no file beside them gives the labels, or if two files give different ones.
    """
    images = sorted(path.name for path in folder.iterdir() if _IMAGE.fullmatch(path.name))
    numbers = [int(match[2]) for name in images if (match := _IMAGE.fullmatch(name))]
    found = [labels for labels in _candidates(folder, numbers) if labels is not None]
    if not found:
        near = sorted(p.name for place in _places(folder)[:2] for p in place.iterdir() if p.suffix in (".txt", ".csv"))
        seen = f" Found without such labels: {listed(near, 4)}." if near else ""
        raise SuiteError(
            f"{folder}: holds {plural(len(images), 'image')} such as {images[0]} without class folders, and no file "
            f"beside them has their labels.{seen} Unpack {DEVKIT}.tar.gz in {folder.parent}, or put "
            "LOC_val_solution.csv or a val.txt with a line 'NAME LABEL' for each image there."
        )
    first, *others = found
    for other in others:
        if any(first.label_of[number] != other.label_of[number] for number in numbers):
            raise SuiteError(
                f"{folder}: {first.source} and {other.source} give different labels. Move the wrong one elsewhere."
            )
    files = FolderImages(str(folder), tuple(images))
    labels = np.array([first.label_of[number] for number in numbers], dtype=np.int64)
    note = f"the labels are those of {first.source}"
    return Found(labels, files.image, files.sample, files.size, str(folder), notes=(note,))


def numbered_folders(root: Path) -> tuple[dict[str, int], Path] | None:
    """The class of each folder called 1 ... 1000 and the file that says so; None if there is no such file.

    It is the devkit's ``meta.mat``, or a list of the 1000 WordNet ids whose lines are in the order of the folders.
    """
    column = _column_of()
    for place in _places(root):
        if meta := _first(place, "meta.mat"):
            return {str(number): label for number, label in devkit_columns(meta).items()}, meta
    for place in _places(root)[:2]:
        for path in _texts(place):
            ids = [line.split()[0] for line in read_lines(path)]
            if sorted(ids) == sorted(column):
                return {str(number): column[wnid] for number, wnid in enumerate(ids, 1)}, path
    return None


def named_folders(folders: Sequence[str]) -> dict[str, int] | None:
    """ImageNet's class of each folder that is called after one of its names; None unless all are, without doubt.

    Names are open_clip's and WordNet's, whole or one of its synonyms; blanks and underscores are the same, and so are
    letters of both cases. A name of several classes is settled if the other folders leave one of them.
    """
    candidates = {folder: _classes_called(folder) for folder in folders}
    settled: dict[str, int] = {}
    while True:
        taken = set(settled.values())
        new = {
            folder: next(iter(classes - taken))
            for folder, classes in candidates.items()
            if folder not in settled and len(classes - taken) == 1
        }
        if len(set(new.values())) < len(new):
            return None
        if not new:
            return settled if len(settled) == len(folders) else None
        settled |= new


def unnamed_folders(folders: Sequence[str]) -> list[str]:
    """The folders that are called after none of ImageNet's classes."""
    return [folder for folder in folders if not _classes_called(folder)]


def in_order(names: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1000 classes in the order of their WordNet ids, but for a few names."""
    right = sum(label in _classes_called(name) for label, name in enumerate(names))
    return len(names) == CLASSES and right >= CLASSES - 10


def devkit_columns(meta: Path) -> dict[int, int]:
    """The class, in the order of WordNet ids, of each of the devkit's numbers 1 ... 1000, from its ``meta.mat``.

    Raises SuiteError if the file is damaged or does not list ImageNet's 1000 classes.
    """
    from scipy.io import loadmat  # takes 0.2 s, and few data sets need it
    from scipy.io.matlab import MatReadError

    column = _column_of()
    try:
        synsets = np.atleast_1d(loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"])
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        found = {int(row["ILSVRC2012_ID"]): column[str(row["WNID"])] for row in leaves}
    except (*_DAMAGE, MatReadError) as error:
        raise SuiteError(
            f"{meta}: expected the devkit's table of ImageNet's classes: {error}. Unpack it again."
        ) from error
    if sorted(found) != list(range(1, CLASSES + 1)):
        raise SuiteError(f"{meta}: expected the classes 1 to {CLASSES}, found {len(found)}. Unpack the devkit again.")
    return found


def _candidates(folder: Path, numbers: list[int]) -> list[_Labels | None]:
    found: list[_Labels | None] = []
    for place in _places(folder):
        if solution := _first(place, "LOC_val_solution.csv"):
            found.append(_by_name(solution, [line.replace(",", " ").split() for line in read_lines(solution)], numbers))
        if truth := _first(place, _TRUTH):
            found.append(_by_line(truth, read_lines(truth), numbers))
    for place in _places(folder)[:2]:
        for path in _texts(place):
            if path.name == _TRUTH:
                continue
            lines = read_lines(path)
            if lines and _IMAGE.match(Path(lines[0].split()[0]).name):
                found.append(_by_name(path, [line.split() for line in lines], numbers))
            elif len(lines) == VALIDATION or (len(lines) == len(numbers) == max(numbers) and len(lines) != CLASSES):
                found.append(_by_line(path, lines, numbers))
    return found


def _by_name(path: Path, rows: list[list[str]], numbers: list[int]) -> _Labels | None:
    """Labels of lines such as ``ILSVRC2012_val_00000001.JPEG 65``; None if an image has no line."""
    text_of: dict[int, str] = {}
    for row in rows:
        match = re.match(r"ILSVRC2012_val_([0-9]{8})", Path(row[0]).name)
        if match and len(row) > 1:
            text_of[int(match[1])] = row[1]
    if not text_of.keys() >= set(numbers):
        return None
    order = sorted(text_of)
    values = _values(path, [text_of[number] for number in order])
    return None if values is None else _Labels(path, dict(zip(order, values, strict=True)))


def _by_line(path: Path, lines: list[str], numbers: list[int]) -> _Labels | None:
    """Labels of lines that belong to the images 1, 2, 3 ..."""
    if len(lines) < max(numbers):
        raise SuiteError(f"{path}: expected a line for each of {max(numbers):,} images, found {len(lines):,}.")
    values = _values(path, lines)
    return None if values is None else _Labels(path, dict(enumerate(values, 1)))


def _values(path: Path, texts: list[str]) -> list[int] | None:
    """Labels of texts that are WordNet ids or numbers; None if they are neither.

    Numbers from 0 on are those of WordNet ids in ascending order; the devkit's run from 1 to 1000.
    """
    column = _column_of()
    if all(_WNID.fullmatch(text) for text in texts):
        if unknown := sorted(set(texts) - column.keys()):
            raise SuiteError(f"{path}: {unknown[0]} is not one of ImageNet's 1000 classes.")
        return [column[text] for text in texts]
    if not all(text.isascii() and text.isdecimal() and len(text) < 5 for text in texts):
        return None
    values = [int(text) for text in texts]
    low, high = min(values), max(values)
    # Caffe's val.txt counts from 0, even if no image of a part of it has the class 0.
    if (low == 0 or path.name == "val.txt") and high < CLASSES and path.name != _TRUTH:
        return values
    meta = next((found for place in _places(path.parent) if (found := _first(place, "meta.mat"))), None)
    if meta is None or not 1 <= low <= high <= CLASSES:
        raise SuiteError(
            f"{path}: its numbers run from {low} to {high}. Numbers from 1 to {CLASSES} are in the devkit's order, for "
            f"which its meta.mat is needed: unpack {DEVKIT}.tar.gz beside it. Numbers in the order of WordNet ids "
            "begin with 0."
        )
    columns = devkit_columns(meta)
    return [columns[value] for value in values]


def _places(folder: Path) -> list[Path]:
    """The folder and those above it, where labels may lie: as far as Kaggle's archive is deep."""
    here = folder.resolve()
    return [here, *list(here.parents)[:4]]


def _first(place: Path, name: str) -> Path | None:
    """The file of that name in `place`, or in a devkit unpacked there."""
    folders = (place, place / DEVKIT / "data", place / "devkit" / "data", place / "data")
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _texts(place: Path) -> list[Path]:
    return sorted(p for p in place.glob("*.txt") if p.is_file() and p.stat().st_size <= _MAX_BYTES)


@cache
def _column_of() -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(imagenet_wnids())}


@cache
def _classes_by_name() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for label, (name, lemma) in enumerate(zip(imagenet_classnames(), imagenet_lemmas(), strict=True)):
        for text in (name, lemma, *lemma.split(", ")):
            found.setdefault(_plain(text), set()).add(label)
    return {text: frozenset(labels) for text, labels in found.items()}


def _classes_called(folder: str) -> frozenset[int]:
    return _classes_by_name().get(_plain(folder), frozenset())


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[_\W]+", " ", text).casefold().split())

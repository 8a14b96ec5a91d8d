"""Recognises the known data sets by their folders: ``/data/imagenet-a`` is ImageNet-A, wherever it lies.

This module knows the entries of the catalogue that it is given, and no other data sets.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergekit_wise.datasets.class_names import subset_columns
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed


def known_at(path: Path, part: str, entries: Mapping[str, Entry]) -> Dataset | None:
    """The data set among `entries` that lies in `path`, as it lies under a data folder; None if there is none.

    Raises SuiteError if several lie there.
    """
    found: dict[str, tuple[Dataset, Path]] = {}
    for here in dict.fromkeys((Path(os.path.abspath(path)), path.resolve())):
        for entry, base in _candidates(here, entries):
            if entry.name not in found and (dataset := _inside(entry, base, here, part)):
                found[entry.name] = dataset, base
    if not found:
        return None
    if len(found) > 1:
        base = next(iter(found.values()))[1]
        raise SuiteError(
            f"{path}: holds several data sets: {listed(found, 4)}. Give one of these names in place of the path, with "
            f"--data {base}."
        )
    ((dataset, _),) = found.values()
    return replace(dataset, notes=(f"recognised as {dataset.name} by its folder {path}", *dataset.notes))


def recognised(dataset: Dataset, entries: Mapping[str, Entry]) -> Dataset:
    """A user's own data set as ImageNet-R or ImageNet-A if it has exactly their classes and number of images.

    If it has the classes alone, it keeps its name, and a note names the data set that has them.
    """
    for name, subset in (("imagenet-r", "r"), ("imagenet-a", "a")):
        entry = entries[name]
        if dataset.columns is None or {c for (c, *_) in dataset.columns} != set(subset_columns(subset)):
            continue
        if len(dataset) == entry.expected:
            note = f"recognised as {name} by its classes and the number of its images"
            return replace(dataset, name=name, title=entry.title, expected=entry.expected, notes=(note, *dataset.notes))
        note = f"its classes are those of {name}, which has {entry.expected:,} images; found {len(dataset):,}"
        return replace(dataset, notes=(*dataset.notes, note))
    return dataset


def with_own_name(dataset: Dataset, entries: Mapping[str, Entry]) -> Dataset:
    """A user's own data set with another name if its own is that of one of `entries`: records hold the name."""
    if dataset.name not in entries or dataset.expected is not None:
        return dataset
    name = f"my-{dataset.name}"
    note = f"called {name} in results, because {dataset.name} is the name of a built-in data set"
    title = name if dataset.title == dataset.name else dataset.title
    return replace(dataset, name=name, title=title, notes=(note, *dataset.notes))


def _candidates(here: Path, entries: Mapping[str, Entry]) -> Iterator[tuple[Entry, Path]]:
    """Entries with a place that begins with the last folders of `here`, each with the data folder that makes it so."""
    for entry in entries.values():
        for place in entry.places:
            folders = Path(place).parts
            for count in range(1, len(folders) + 1):
                if here.parts[-count:] == folders[:count]:
                    yield entry, here.parents[count - 1]


def _inside(entry: Entry, base: Path, here: Path, part: str) -> Dataset | None:
    """The data set under `base`, if it lies in `here` and has images of all its classes."""
    for wanted in dict.fromkeys((part, "test")):
        try:
            dataset = entry.open(base, wanted)
        except SuiteError:  # a folder of another data set with the same name
            continue
        if dataset is not None and Path(dataset.location).is_relative_to(here) and _is_whole(dataset):
            return dataset
    return None


def _is_whole(dataset: Dataset) -> bool:
    """Whether no class lacks images: a folder called val may hold a data set of some of ImageNet's classes."""
    return dataset.vocabulary != "imagenet" or len(np.unique(dataset.labels)) == len(dataset.classnames)

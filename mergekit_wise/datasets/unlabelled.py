"""Images without classes: a folder of images at any depth, a tar, or a folder of tars.

Labels that are there, as names of folders or as members of tars, are ignored, and the notes say so. What else is left
out is counted and named there, too. This module knows no model.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.folders import as_text, list_all_images
from mergekit_wise.datasets.image_file import is_image_file
from mergekit_wise.datasets.webdataset import COMPRESSED, has_tars, open_all_images
from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.wording import listed, plural

_EXPECTED = "Expected a folder with images, a tar, or a folder of tars"


def open_unlabelled(path: Path) -> Dataset:
    """The images at `path`, with the label 0 for each and without classes; see `with_classes_of`. Decodes none.

    Images lie in the folder or at any depth below it, and are recognised as in class folders (`folders`). A folder that
    holds tars and no image is read as tars; of its parts, the test part (`webdataset`).

    Raises SuiteError if there is nothing at `path`, or no image in it, or if a tar is damaged.
    """
    if path.is_file():
        _require_tar(path)
    elif not path.is_dir():
        raise SuiteError(f"{path}: no such folder or file. {_EXPECTED}.")
    files = list_all_images(path) if path.is_dir() else None
    if files is None or has_tars(path):
        if files is not None and files.paths:
            raise SuiteError(
                f"{path}: holds both tars and {plural(len(files.paths), 'image')}, such as {files.paths[0]!r}. Move "
                "the ones that you do not mean elsewhere."
            )
        tars, notes = open_all_images(path)
        count, image, sample, size = len(tars.names), tars.image, tars.sample, tars.size
    else:
        if not files.paths:
            what = f" Besides, {'; '.join(files.notes)}." if files.notes else ""
            raise SuiteError(f"{path}: found no image. {_EXPECTED}.{what}")
        count, image, sample, size = len(files.paths), files.image, files.sample, files.size
        notes = (*_notes_on_folders(files.paths), *files.notes)
    name = as_text(path.stem if path.is_file() else path.resolve().name)
    labels = np.zeros(count, np.int64)
    return Dataset(name, name, (), labels, image, sample=sample, size=size, location=str(path), notes=notes)


def with_classes_of(images: Dataset, reference: Dataset) -> Dataset:
    """The images as one more data set with the classes of `reference`: its names, prompts and columns of a head."""
    return replace(
        images,
        classnames=reference.classnames,
        templates=reference.templates,
        columns=reference.columns,
        no_answers=reference.no_answers,
        vocabulary=reference.vocabulary,
    )


def open_each_unlabelled(paths: Sequence[Path], taken: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """The images at each path, under names that none of the others and none of the data sets `taken` has.

    Raises SuiteError as `open_unlabelled` does, and UsageError if images would be read twice.
    """
    places = [path.resolve() for path in paths]
    for number, place in enumerate(places):
        for other in places[:number]:
            if place == other:
                raise UsageError(f"--unlabelled {paths[number]}: is named twice. Name it once.")
            inner, outer = sorted((place, other), key=lambda one: len(one.parts), reverse=True)
            if inner.is_relative_to(outer):
                raise UsageError(f"--unlabelled {inner}: lies in {outer}, which is named too. Name one of them.")
    opened = [open_unlabelled(path) for path in paths]
    names = [each.name for each in (*opened, *taken)] + [each.title for each in taken]
    return tuple(
        one if names.count(one.name) == 1 else replace(one, name=as_text(str(place)), title=as_text(str(path)))
        for one, path, place in zip(opened, paths, places, strict=True)
    )


def _require_tar(path: Path) -> None:
    """Raise SuiteError unless a file is an uncompressed tar by its name."""
    if path.name.endswith(COMPRESSED):
        raise SuiteError(f"{path}: compressed tars cannot be read at an offset. Run: gunzip {path}")
    if path.suffix == ".zip":
        raise SuiteError(
            f"{path}: is an archive. Unpack it and give the folder: unzip {path} -d {path.with_suffix('')}"
        )
    if path.suffix != ".tar":
        one = "a single image" if is_image_file(path) else "no tar"
        raise SuiteError(f"{path}: is {one}. {_EXPECTED}.")


def _notes_on_folders(paths: Sequence[str]) -> tuple[str, ...]:
    """Names the folders of images, which may look like classes."""
    folders = sorted({path.rpartition("/")[0] for path in paths if "/" in path})
    if not folders:
        return ()
    return (
        f"read images from {plural(len(folders), 'folder')} below it, whose names are ignored: "
        f"{listed(map(repr, folders), 3)}",
    )

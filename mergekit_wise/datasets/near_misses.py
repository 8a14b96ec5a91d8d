"""Folders that are no data set but nearly one: what is wrong with them, and the one step that helps.

This module opens no data set; it reads the names of files and folders.
"""

import os
from pathlib import Path

from mergekit_wise.datasets import tables
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.imagenet_files import CLASSES, unnamed_folders
from mergekit_wise.datasets.splits import role_of
from mergekit_wise.datasets.webdataset import COMPRESSED
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

_UNSORTED = frozenset(("images", "image", "img", "imgs", "jpegimages", "data", "pictures", "photos"))
"""Names of folders, in lower case, that hold images of all classes."""


def require_classes(root: Path, folders: tuple[str, ...]) -> None:
    """Raise SuiteError if the folders are no classes, but hold the folders of classes or of parts."""
    if len(folders) == 1 and folders[0].casefold() in _UNSORTED and _holds_images(root / folders[0]):
        raise SuiteError(
            f"{root}: has the single folder {folders[0]!r}, whose name is no class. List the images in a CSV file with "
            "the columns path and label, and give its path; or give the folder a class with class_map in a TOML file."
        )
    inside = {folder: class_folders(root / folder) for folder in folders[:8]}
    if any(not names or _holds_images(root / folder) for folder, names in inside.items()):
        return
    first, names = next(iter(inside.items()))
    if len(folders) == 1:
        raise SuiteError(f"{root}: has the single folder {first!r}, which holds folders. Give the path {root / first}.")
    if len(names) > 1 and len(set(inside.values())) == 1:
        if all(map(role_of, names)):
            raise SuiteError(
                f"{root}: each of its folders holds the parts {listed(map(repr, names))}. Move them above the classes, "
                f"as in {root / names[0] / first}."
            )
        raise SuiteError(
            f"{root}: its folders {listed(map(repr, folders), 4)} all hold the same folders, "
            f"{listed(map(repr, names), 3)}: they seem to be data sets rather than classes. Give the path of one, such "
            f"as {root / first}."
        )


def refuse_nearly_imagenet(root: Path, folders: tuple[str, ...]) -> None:
    """Raise SuiteError for 1000 folders most of which have names of ImageNet's classes: their order is not the ids'."""
    unknown = unnamed_folders(folders)
    if len(folders) == CLASSES and len(unknown) < CLASSES // 2:
        doubtful = unknown or ["names of several classes"]
        raise SuiteError(
            f"{root}: its {CLASSES} folders have names of ImageNet's classes, but not all are clear: "
            f"{listed(doubtful, 5)}. Rename these to WordNet ids, or assign all folders with class_map in a TOML file."
        )


def nothing_in(place: Path) -> str:
    """What is wrong with a folder without classes, and what can be done with what is in it."""
    inside = sorted(place.iterdir())
    lists = [path for path in inside if path.suffix.casefold() in tables.ENDINGS]
    archives = [path for path in inside if path.suffix == ".zip" or path.name.endswith((*COMPRESSED, ".tar"))]
    images = [path for path in inside if path.name.lower().endswith(EXTENSIONS)]
    found = f"found {plural(len(images), 'image')} without a class" if images else "found neither"
    start = f"{place}: expected class folders with images, or tars in test/; {found}."
    if lists:
        return f"{start} If {lists[0].name} lists the labels, give the path {lists[0]} in place of the folder."
    if archives:
        return f"{start} Unpack {archives[0].name} and give the folder with its classes."
    if images:
        return f"{start} List the images in a CSV file with the columns path and label, and give its path."
    return start


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(EXTENSIONS) for entry in entries)

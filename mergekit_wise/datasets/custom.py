"""A user's own data set: a folder of class folders, or a folder of tars.

Knows nothing of the data sets that the catalogue names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mergekit_wise.datasets.class_names import PLAIN, imagenet_classnames, imagenet_templates, imagenet_wnids
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.datasets.layouts import Found, open_folders, require_labels
from mergekit_wise.datasets.webdataset import has_tars, open_tars
from mergekit_wise.errors import SuiteError

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Customization:
    """What a user says of a data set that its folders do not; None or empty where nothing is said.

    ``class_map`` gives a folder's class by name or number, and leaves out the folders that it does not have.
    """

    name: str
    title: str
    classnames: Names | None = None
    templates: Names | None = None
    class_map: Mapping[str, str | int] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    vocabulary: str = ""


def open_folder(root: Path, wishes: Customization | None = None) -> Dataset:
    """The data set in `root`: tars if there are some in ``test/`` or in it, class folders otherwise.

    Classes are named after their folders, in the order of the folders' names. Folders that are all WordNet ids of
    ImageNet are classes of ImageNet, under its names; folders that are all numbers must be 0, 1, 2 ... without a gap.

    Raises SuiteError if there is nothing, or if it is not clear what a folder means.
    """
    wishes = Customization(root.resolve().name, root.resolve().name) if wishes is None else wishes
    if not root.is_dir():
        raise SuiteError(f"{root}: no such folder. Expected class folders with images, or tars in test/.")
    if has_tars(root):
        return _from_tars(root, wishes)
    return _mapped(root, wishes) if wishes.class_map else _from_folders(root, wishes)


def _from_tars(root: Path, wishes: Customization) -> Dataset:
    if wishes.class_map:
        raise SuiteError(f"{root}: class_map is for class folders; tars have class numbers already.")
    tars = open_tars(root)
    names = wishes.classnames or tars.classnames or tuple(map(str, range(int(tars.labels.max()) + 1)))
    require_labels(tars.labels, len(names), str(root))
    images = tars.images
    found = Found(tars.labels, images.image, images.sample, images.size, str(root), templates=tars.templates)
    return _dataset(found, names, wishes)


def _from_folders(root: Path, wishes: Customization) -> Dataset:
    folders = class_folders(root)
    if not folders:
        raise SuiteError(f"{root}: expected class folders with images, or tars in test/; found neither.")
    wnids = {wnid: number for number, wnid in enumerate(imagenet_wnids())}
    if all(folder in wnids for folder in folders):
        if wishes.vocabulary == "imagenet" and wishes.classnames:
            return _dataset(open_folders(root, wnids, "by WordNet ids"), wishes.classnames, wishes)
        if not wishes.classnames:
            return _of_imagenet(root, wishes, tuple(wnids[folder] for folder in folders))
    label_of = _numbers(root, folders) or {folder: label for label, folder in enumerate(folders)}
    names = wishes.classnames or tuple(sorted(folders, key=label_of.__getitem__))
    if len(names) != len(folders):
        raise SuiteError(
            f"{root}: {len(names)} class names were given for {len(folders)} class folders. "
            "Give one for each, or say with class_map which folder is which."
        )
    return _dataset(open_folders(root, label_of, "after classes"), names, wishes)


def _of_imagenet(root: Path, wishes: Customization, columns: tuple[int, ...]) -> Dataset:
    names, wnids = imagenet_classnames(), imagenet_wnids()
    found = open_folders(root, {wnids[column]: label for label, column in enumerate(columns)}, "by WordNet ids")
    classes = tuple(names[column] for column in columns)
    whole = len(columns) == len(names)
    return _dataset(found, classes, wishes, None if whole else tuple((column,) for column in columns), "imagenet")


def _numbers(root: Path, folders: Names) -> dict[str, int] | None:
    """Labels of folders that are called by numbers; None where not all are."""
    if not all(folder.isdecimal() for folder in folders):
        return None
    if sorted(map(int, folders)) != list(range(len(folders))):
        raise SuiteError(
            f"{root}: its folders are numbers, but not those from 0 to {len(folders) - 1}. "
            "Say which class each one is with class_map in a TOML file."
        )
    return {folder: int(folder) for folder in folders}


def _mapped(root: Path, wishes: Customization) -> Dataset:
    folders = class_folders(root)
    if lost := [folder for folder in wishes.class_map if folder not in folders]:
        raise SuiteError(
            f"{root}: class_map names the folder {lost[0]!r}, which is not among its {len(folders)} folders."
        )
    targets = wishes.class_map.values()
    names = wishes.classnames or tuple(sorted({str(target) for target in targets if isinstance(target, str)}))
    label_of = {folder: _label(root, folder, target, names) for folder, target in wishes.class_map.items()}
    images, labels = list_images(root, label_of)
    return _dataset(Found(labels, images.image, images.sample, images.size, str(root)), names, wishes)


def _label(root: Path, folder: str, target: str | int, names: Names) -> int:
    numbers = [number for number, name in enumerate(names) if target in (number, name)]
    if len(numbers) == 1:
        return numbers[0]
    which = f"which {len(numbers)} classes are called; give its number" if numbers else f"none of the {len(names)}"
    raise SuiteError(f"{root}: class_map gives {folder!r} the class {target!r}, {which}.")


def _dataset(
    found: Found,
    names: Names,
    wishes: Customization,
    columns: tuple[tuple[int, ...], ...] | None = None,
    vocabulary: str = "",
) -> Dataset:
    vocabulary = wishes.vocabulary or vocabulary
    return Dataset(
        wishes.name,
        wishes.title,
        names,
        found.labels,
        found.image,
        templates=wishes.templates or found.templates or (imagenet_templates() if vocabulary == "imagenet" else PLAIN),
        columns=columns,
        vocabulary=vocabulary,
        metric=wishes.metric,
        sample=found.sample,
        location=found.location,
        size=found.size,
    )

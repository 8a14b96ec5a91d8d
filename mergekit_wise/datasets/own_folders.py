"""A user's own data set in any layout: class folders, tars, parquet files, or a table of paths and labels.

What is known of it besides is a :class:`Description`. This module knows nothing of TOML, nor of the data sets that the
catalogue names, except that folders may have the ids, the numbers or the names of ImageNet's classes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mergekit_wise.datasets import parquet, tables
from mergekit_wise.datasets.class_names import (
    PLAIN,
    imagenet_classnames,
    imagenet_templates,
    imagenet_wnids,
)
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.folders import as_text, class_folders, list_images
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.imagenet_files import (
    CLASSES,
    DEVKIT,
    KAGGLE,
    in_order,
    is_flat,
    named_folders,
    numbered_folders,
    open_flat,
)
from mergekit_wise.datasets.layouts import Found, open_folders, require_labels
from mergekit_wise.datasets.name_matching import IN_GIVEN_ORDER, labels_by_name, require_own_places, same_order
from mergekit_wise.datasets.near_misses import nothing_in, refuse_nearly_imagenet, require_classes
from mergekit_wise.datasets.splits import part_folder, part_names, role_of
from mergekit_wise.datasets.webdataset import COMPRESSED, TarSet, has_tars, open_tar, open_tars
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean, listed, plural

MAX_NUMBERED = 100_000
"""The most classes that tars without class names may have: a .cls file can hold any number."""

Numbers = Literal["from-zero", "from-one", "as-text"]
"""What folders called after numbers mean: the classes from 0 or from 1 on, or names like any others."""

_EXPECTED = "class folders with images, tars, parquet files, or a CSV file"


@dataclass(frozen=True, slots=True)
class Description:
    """What a user states about a data set beyond its folders; None or empty where nothing is stated.

    Attributes:
        name: for records.
        title: for tables.
        classnames: by label.
        templates: prompts for zero-shot heads.
        class_map: the class of each folder by name or number. Folders that it does not name are left out.
        metric: the number that is reported.
        vocabulary: of the class names, if it is known.
        part: the name of the part to open, whatever it is opened for.
        numbers: what numbers as names of folders mean, or as labels in a table.
        label: the column of labels of parquet files.
        leave_out_incomplete: whether samples without an image or a label are left out.
        named_folders: whether class folders must have the names in ``classnames``, so that a folder that is missing
            cannot shift the labels of the others.
    """

    name: str
    title: str
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    class_map: Mapping[str, str | int] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    vocabulary: str = ""
    part: str = ""
    numbers: Numbers | None = None
    label: str = ""
    leave_out_incomplete: bool = False
    named_folders: bool = False


def open_folder(root: Path, description: Description | None = None, part: str = "test") -> Dataset:
    """Open the data set in `root`: a folder of class folders, tars or parquet files; or a table, tar or parquet file.

    If it has a training part and a test part, `part` says which is opened: ``train`` or ``test`` (see `splits`).
    Classes are named after their folders, in the order of the folders' names. If all folders are WordNet ids of
    ImageNet, the classes are those of ImageNet. If all folders are numbers, they must be 0, 1, 2 ... without a gap.

    Raises SuiteError if there are no images, or if the class of a folder or the part to open is not clear.
    """
    if description is None:
        name = as_text(root.stem if root.is_file() else root.resolve().name)
        description = Description(name, name)
    part = description.part or part
    if root.is_file():
        return _from_file(root, description, part)
    if not root.is_dir():
        raise SuiteError(f"{root}: no such folder. Expected {_EXPECTED}.")
    if (root / KAGGLE).is_dir():
        root = root / KAGGLE
    if description.class_map and not set(description.class_map).isdisjoint(class_folders(root)):
        return _from_class_map(root, description)
    place, notes = part_folder(root, part, _is_part)
    notes = (*notes, *_notes_beside_parts(root))
    dataset = _from_place(place, description, part)
    return replace(dataset, notes=(*notes, *dataset.notes))


def labelled_parts(root: Path) -> tuple[str, ...]:
    """The names of the folders in `root` that are parts with labelled images, such as ``train`` and ``val``, sorted."""
    return part_names(root, _is_part)


def open_remote(address: str, description: Description | None = None) -> Dataset:
    """Open the data set in the tars at an address, such as ``https://host/birds/{00..05}.tar`` (see `remote_tars`).

    Raises SuiteError as `open_folder` does, or if a file cannot be read from there.
    """
    from mergekit_wise.datasets.remote_tars import folder_of, name_of, open_remote_tars  # brings all of urllib

    if description is None:
        name = as_text(name_of(address))
        description = Description(name, name)
    if description.part:
        raise SuiteError(f"{folder_of(address)}: 'part' is for folders; the address of tars says which part they are.")
    incomplete = description.leave_out_incomplete
    tars = open_remote_tars(address, description.classnames, leave_out_incomplete=incomplete)
    return _from_tars(folder_of(address), tars, description)


def _from_file(path: Path, description: Description, part: str) -> Dataset:
    if path.suffix.casefold() in tables.ENDINGS:
        found = tables.open_csv(
            path,
            part,
            description.classnames,
            from_one=description.numbers == "from-one",
            leave_out_incomplete=description.leave_out_incomplete,
        )
        return _from_labelled(found, description)
    if path.suffix in parquet.ENDINGS:
        return _from_parquet((path,), path, description, part)
    if path.suffix == ".tar":
        incomplete = description.leave_out_incomplete
        return _from_tars(path, open_tar(path, description.classnames, leave_out_incomplete=incomplete), description)
    if path.name.endswith(COMPRESSED):
        raise SuiteError(f"{path}: compressed tars cannot be read at an offset. Run: gunzip {path}")
    if path.suffix == ".zip":
        raise SuiteError(
            f"{path}: is an archive. Unpack it and give the folder: unzip {path} -d {path.with_suffix('')}"
        )
    raise SuiteError(
        f"{path}: is no data set. Expected a folder, or a file that ends in .toml, .csv, .tsv or .parquet."
    )


def _from_place(place: Path, description: Description, part: str) -> Dataset:
    if has_tars(place, part):
        incomplete = description.leave_out_incomplete
        tars = open_tars(place, 0, part, description.classnames, leave_out_incomplete=incomplete)
        return _from_tars(place, tars, description)
    if files := parquet.data_files(place):
        return _from_parquet(files, place, description, part)
    if description.class_map:
        return _from_class_map(place, description)
    if class_folders(place):
        return _from_folders(place, description)
    if is_flat(place):
        names = description.classnames or imagenet_classnames()
        return _dataset(open_flat(place), names, description, vocabulary="imagenet")
    raise SuiteError(nothing_in(place))


def _is_part(place: Path) -> bool:
    """Whether labelled images may lie in a folder that is called after a part: a class may be called so, too."""
    return bool(class_folders(place)) or has_tars(place) or bool(parquet.data_files(place)) or is_flat(place)


def _notes_beside_parts(root: Path) -> tuple[str, ...]:
    """What is beside the parts of a data set and not read.

    Raises SuiteError if images are: they may be a part of another name, or the parts may be classes.
    """
    folders, parts = class_folders(root), labelled_parts(root)
    others = [name for name in folders if name not in parts]
    unlabelled = [name for name in others if role_of(name) and _has_image(root / name)]
    if not parts:
        if folders and len(unlabelled) == len(folders):
            raise SuiteError(
                f"{root}: its folders {listed(map(repr, folders))} are called after parts of a data set and hold "
                "images without class folders. List the images in a CSV file with the columns path, label and split, "
                "and give its path; or, if the folders are classes, assign them with class_map in a TOML file."
            )
        are = "folder is" if len(unlabelled) == 1 else "folders are"
        note = f"{len(unlabelled)} {are} called after parts of a data set and read as classes: "
        return (note + listed(map(repr, unlabelled)),) if unlabelled else ()
    unclear = [name for name in others if not role_of(name) and _has_image(root / name)]
    if unclear:
        raise SuiteError(
            f"{root}: the folders {listed(map(repr, unclear), 3)} with images are neither among its parts, "
            f"{listed(map(repr, parts))}, nor clearly classes. Give the path of one part, such as {root / parts[0]}, "
            "or assign folders to classes with class_map in a TOML file."
        )
    return tuple(f"the folder {name!r} has images without labels and is not read" for name in unlabelled)


def _has_image(folder: Path) -> bool:
    return any(name.lower().endswith(EXTENSIONS) for _, _, names in os.walk(folder) for name in names)


def _from_tars(root: Path | str, tars: TarSet, description: Description) -> Dataset:
    if description.class_map:
        raise SuiteError(f"{root}: class_map is for class folders; tars have class numbers already.")
    images = tars.images
    found = Found(
        tars.labels,
        images.image,
        images.sample,
        images.size,
        str(root),
        tars.classnames,
        tars.templates,
        tars.notes,
    )
    return _from_labelled(found, description)


def _from_parquet(files: tuple[Path, ...], root: Path, description: Description, part: str) -> Dataset:
    if description.class_map:
        raise SuiteError(f"{root}: class_map is for class folders; parquet files have class numbers already.")
    found = parquet.open_parquet(files, root, part, description.classnames, description.label)
    return _from_labelled(found, description)


def _from_labelled(found: Found, description: Description) -> Dataset:
    """A data set whose labels are numbers already."""
    if description.classnames is None and found.classnames is not None:
        if in_order(found.classnames):
            return _of_imagenet(found, found.classnames, range(CLASSES), description)
        if columns := _columns_of(found.classnames):
            return _of_imagenet(found, found.classnames, columns, description)
    names = description.classnames or found.classnames
    if names is None:
        names = _numbered(int(found.labels.max()) + 1, found.location)
    require_labels(found.labels, len(names), found.location)
    if found.classnames is not None and len(found.classnames) == len(names):
        found = _in_order(found, found.classnames, names)
    return _dataset(found, names, description)


def _columns_of(names: Sequence[str]) -> tuple[int, ...]:
    """ImageNet's class of each name, if all names are WordNet ids or names of ImageNet's classes; else empty."""
    wnids = {wnid: column for column, wnid in enumerate(imagenet_wnids())}
    column_of = wnids if wnids.keys() >= set(names) else named_folders(names) or {}
    return tuple(column_of[name] for name in names if column_of)


def _of_imagenet(found: Found, names: Sequence[str], columns: Sequence[int], description: Description) -> Dataset:
    """A data set whose classes are ImageNet's: all, whose labels then become ImageNet's, or some.

    Some classes that have names rather than WordNet ids keep their names and the templates of any data set: they may
    also be those of a model of their own.
    """
    require_labels(found.labels, len(names), found.location)
    ours = imagenet_classnames()
    by_name = not set(imagenet_wnids()).issuperset(names) and not all(name.isdecimal() for name in names)
    if by_name:
        note = f"its {plural(len(names), 'class')} are matched with ImageNet's by their names"
        found = replace(found, notes=(*found.notes, note))
    if len(columns) == CLASSES:
        found = replace(found, labels=np.array(columns, dtype=np.int64)[found.labels])
        return _dataset(found, ours, description, vocabulary="imagenet")
    of_columns = tuple((column,) for column in columns)
    if by_name:
        found = replace(found, templates=found.templates or PLAIN)
        return _dataset(found, tuple(names), description, of_columns, "imagenet")
    return _dataset(found, tuple(ours[column] for column in columns), description, of_columns, "imagenet")


def _numbered(count: int, where: str) -> tuple[str, ...]:
    """Class numbers as names, for tars without class names."""
    if count > MAX_NUMBERED:
        raise SuiteError(
            f"{where}: expected class numbers below {MAX_NUMBERED:,}, found {count - 1:,} in a .cls file. If it is "
            "right, list the class names in classnames.txt, one per line."
        )
    return tuple(map(str, range(count)))


def _from_folders(root: Path, description: Description) -> Dataset:
    folders = class_folders(root)
    require_classes(root, folders)
    wnids = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    if description.vocabulary == "imagenet" and description.classnames and wnids.keys() >= set(folders):
        return _dataset(open_folders(root, wnids, "by WordNet ids"), description.classnames, description)
    if description.named_folders and description.classnames:
        label_of = labels_by_name(description.classnames, folders)
        expected = f"after its {plural(len(description.classnames), 'class')}, such as {description.classnames[0]!r}"
        return _dataset(open_folders(root, label_of, expected), description.classnames, description)
    if all(folder.isdecimal() for folder in folders) and description.numbers != "as-text":
        return _from_numbers(root, folders, description)
    label_of = {folder: label for label, folder in enumerate(folders)}
    if not description.classnames:
        if columns := _columns_of(folders):
            return _of_imagenet(open_folders(root, label_of, "after classes"), folders, columns, description)
        refuse_nearly_imagenet(root, folders)
        trained = _trained_classes(root)
        if set(folders) < set(trained):
            label_of = {folder: label for label, folder in enumerate(trained)}
            lacking = [folder for folder in trained if folder not in folders]
            note = f"the classes are those of the training part; without images here: {listed(lacking, 3)}"
            dataset = _from_named(root, label_of, description)
            return replace(dataset, notes=(note, *dataset.notes))
        if other := sorted(set(folders) - set(trained)) if trained else []:
            dataset = _from_named(root, label_of, description)
            note = f"the training part beside it lacks the classes {listed(map(repr, other), 3)}"
            return replace(dataset, notes=(note, *dataset.notes))
    return _from_named(root, label_of, description)


def _trained_classes(place: Path) -> tuple[str, ...]:
    """The class folders of the training part beside another part; the classes of a model that was trained on it."""
    here = place.resolve()
    if role_of(here.name) not in ("test", "validation"):
        return ()
    beside = [name for name in labelled_parts(here.parent) if role_of(name) == "train"]
    return class_folders(here.parent / beside[0]) if beside else ()


def _from_named(root: Path, label_of: Mapping[str, int], description: Description) -> Dataset:
    names = description.classnames or tuple(map(as_text, sorted(label_of, key=label_of.__getitem__)))
    if len(names) != len(label_of):
        raise SuiteError(
            f"{root}: expected {plural(len(label_of), 'class name')}, one per class folder, found {len(names)}. "
            "Give one for each folder, or assign folders to classes with class_map."
        )
    found = open_folders(root, label_of, "after classes")
    return _dataset(
        _in_order(found, tuple(map(as_text, sorted(label_of, key=label_of.__getitem__))), names), names, description
    )


def _in_order(found: Found, own: Sequence[str], names: tuple[str, ...]) -> Found:
    """`found`, whose classes have their `own` names, with labels in the order of `names`, if these are the same names.

    Raises SuiteError if most are, but not all.
    """
    places = same_order(own, names)
    if places is None:
        require_own_places(own, names, found.location)
    if places is None or places == tuple(range(len(names))):
        return found
    return replace(
        found, labels=np.array(places, np.int64)[found.labels], classnames=names, notes=(*found.notes, IN_GIVEN_ORDER)
    )


def _from_numbers(root: Path, folders: tuple[str, ...], description: Description) -> Dataset:
    """Class folders called after numbers. Raises SuiteError if the class of a number is not clear."""
    values, first = sorted(map(int, folders)), 1 if description.numbers == "from-one" else 0
    if values == list(range(first, first + len(folders))):
        dataset = _from_named(root, {folder: int(folder) - first for folder in folders}, description)
        if list(map(int, folders)) == values or description.numbers:
            return dataset
        note = (
            "its numbered folders are classes in the order of the numbers; for ImageFolder's order, as texts, set "
            'numbers = "as-text" in a TOML file'
        )
        return replace(dataset, notes=(*dataset.notes, note))
    devkit = ""
    if values == list(range(1, CLASSES + 1)) and not description.classnames:
        if numbered := numbered_folders(root):
            label_of, source = numbered
            columns = [label_of[str(int(folder))] for folder in folders]
            found = open_folders(root, {folder: label for label, folder in enumerate(folders)}, "after numbers")
            note = f"the classes of its numbered folders are those of {source}"
            return _of_imagenet(replace(found, notes=(*found.notes, note)), folders, columns, description)
        devkit = f" If they are ImageNet's in the devkit's order, unpack {DEVKIT}.tar.gz in {root.resolve().parent}."
    from_one = ' numbers = "from-one",' if values == list(range(1, len(folders) + 1)) else ""
    raise SuiteError(
        f"{root}: expected folders with the numbers from {first} to {first + len(folders) - 1}, found other numbers: "
        f"from {values[0]} to {values[-1]}.{devkit} Otherwise say what they mean in a TOML file:{from_one} "
        'numbers = "as-text" for the order of ImageFolder, or each folder\'s class in class_map.'
    )


def _from_class_map(root: Path, description: Description) -> Dataset:
    folders, class_map = class_folders(root), description.class_map
    if unknown := [folder for folder in class_map if folder not in folders]:
        raise SuiteError(
            f"{root}: class_map names the folder {unknown[0]!r}, which is not among its "
            f"{plural(len(folders), 'folder')}.{did_you_mean(unknown[0], folders)}"
        )
    targets = {target for target in class_map.values() if isinstance(target, str)}
    names = description.classnames or tuple(sorted(targets))
    label_of = {folder: _label(root, folder, target, names) for folder, target in class_map.items()}
    images, labels = list_images(root, label_of)
    left_out = [folder for folder in folders if folder not in class_map]
    note = f"class_map does not name {plural(len(left_out), 'folder')}, left out: {listed(map(repr, left_out), 5)}"
    notes = (*images.notes, *((note,) if left_out else ()))
    return _dataset(Found(labels, images.image, images.sample, images.size, str(root), notes=notes), names, description)


def _label(root: Path, folder: str, target: str | int, names: tuple[str, ...]) -> int:
    labels = [label for label, name in enumerate(names) if target in (label, name)]
    if len(labels) == 1:
        return labels[0]
    problem = (
        f"which is the name of {len(labels)} classes; give its number"
        if labels
        else f"which is not among the {plural(len(names), 'class')}"
    )
    raise SuiteError(f"{root}: class_map gives {folder!r} the class {target!r}, {problem}.")


def _dataset(
    found: Found,
    names: tuple[str, ...],
    description: Description,
    columns: tuple[tuple[int, ...], ...] | None = None,
    vocabulary: str = "",
) -> Dataset:
    vocabulary = description.vocabulary or vocabulary
    default_templates = imagenet_templates() if vocabulary == "imagenet" else PLAIN
    return Dataset(
        description.name,
        description.title,
        names,
        found.labels,
        found.image,
        templates=description.templates or found.templates or default_templates,
        columns=columns,
        vocabulary=vocabulary,
        metric=description.metric,
        sample=found.sample,
        location=found.location,
        size=found.size,
        notes=found.notes,
    )

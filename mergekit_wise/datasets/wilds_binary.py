"""Camelyon17, Waterbirds and CelebA: the data sets of two classes that the package wilds reads.

Sources: Bandi et al. 2018 with Koh et al. 2021 (arXiv 2012.07421); Sagawa et al. 2020 (arXiv 1911.08731); Liu et al.
2015. Parts, labels and groups are those of the wilds package, read from the lists in its downloads.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.class_names import PLAIN
from mergekit_wise.datasets.csv_rows import class_number, read_rows
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.layouts import Found, first_folder, open_list
from mergekit_wise.errors import SuiteError

Part = Literal["id", "val", "ood"]

CAMELYON17_CLASSES = ("lymph node", "lymph node containing metastatic tumor tissue")
CAMELYON17_TEMPLATES = ("this is a photo of {}",)
WATERBIRDS_CLASSES = ("landbird", "waterbird")
CELEBA_CLASSES = ("person with dark hair", "person with blond hair")

# Of the column "center"; the others are those of training, of which some patches are for validation.
_PART_OF_HOSPITAL: Mapping[int, Part] = {1: "val", 2: "ood"}
_ID_VALIDATION, _TEST = 1, 2


def _find_camelyon17(part: Part, root: Path) -> Dataset | None:
    """Patches of the hospital for tests ("ood"), of that for validation ("val"), or of those of training ("id").

    Whatever the column ``split`` says of the two hospitals' patches, as in the wilds package.
    """
    folder = first_folder(root, _CAMELYON17_FOLDERS, "metadata.csv")
    if folder is None:
        return None
    metadata = folder / "metadata.csv"
    paths, labels = [], []
    columns = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
    for row, (patient, node, x, y, tumor, center, split) in enumerate(read_rows(metadata, *columns)):
        own = "id" if class_number(split, metadata, row) == _ID_VALIDATION else None
        if _PART_OF_HOSPITAL.get(class_number(center, metadata, row), own) == part:
            slide = f"patient_{patient}_node_{node}"
            paths.append(f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png")
            labels.append(_flag(tumor, metadata, row))
    name = f"camelyon17-{part}"
    found, _ = _open(folder, paths, labels)
    return found.dataset(name, _TITLES[name], CAMELYON17_CLASSES, CAMELYON17_TEMPLATES, len(paths))


def find_waterbirds(root: Path) -> Dataset | None:
    """The test part; groups are the kind of bird with the kind of background. The metric is the worst group's top-1."""
    folder = first_folder(root, _WATERBIRDS_FOLDERS, "metadata.csv")
    if folder is None:
        return None
    metadata = folder / "metadata.csv"
    paths, labels, groups = [], [], []
    for row, (path, y, place, split) in enumerate(read_rows(metadata, "img_filename", "y", "place", "split")):
        if class_number(split, metadata, row) == _TEST:
            label = _flag(y, metadata, row)
            paths.append(path)
            labels.append(label)
            groups.append(f"{WATERBIRDS_CLASSES[label]} on {('land', 'water')[_flag(place, metadata, row)]}")
    return _grouped("waterbirds", folder, paths, labels, groups, WATERBIRDS_CLASSES)


def _flag(text: str, path: Path, row: int) -> int:
    if text not in ("0", "1"):
        raise SuiteError(f"{path}: expected 0 or 1 in line {row + 2}, found {text[:40]!r}.")
    return int(text)


def find_celeba(root: Path) -> Dataset | None:
    """The test part, with blond hair as the class; groups are the class with the attribute ``Male``.

    The metric is the worst group's top-1.
    """
    folder = first_folder(root, _CELEBA_FOLDERS, "list_attr_celeba.csv", "list_eval_partition.csv")
    if folder is None:
        return None
    partition = {row[0]: row[1] for row in read_rows(folder / "list_eval_partition.csv", "image_id", "partition")}
    paths, labels, groups = [], [], []
    attributes = folder / "list_attr_celeba.csv"
    for row, (name, blond, male) in enumerate(read_rows(attributes, "image_id", "Blond_Hair", "Male")):
        if name not in partition or {blond, male} - {"1", "-1", "0"}:
            raise SuiteError(
                f"{attributes}: expected in line {row + 2} an image of list_eval_partition.csv and the attributes 1 or "
                f"-1, found {name[:40]!r}, {blond[:10]!r} and {male[:10]!r}. Download both files again."
            )
        if partition[name] == str(_TEST):
            label = int(blond == "1")
            paths.append(f"img_align_celeba/{name}")
            labels.append(label)
            groups.append(f"{('dark', 'blond')[label]}, {'male' if male == '1' else 'female'}")
    return _grouped("celeba-hair", folder, paths, labels, groups, CELEBA_CLASSES)


def _grouped(
    name: str, folder: Path, paths: list[str], labels: list[int], groups: list[str], classnames: tuple[str, ...]
) -> Dataset:
    found, kept = _open(folder, paths, labels)
    array = np.array([groups[row] for row in kept])
    metric = Metric("worst-group", {group: np.flatnonzero(array == group) for group in sorted(set(array.tolist()))})
    return found.dataset(name, _TITLES[name], classnames, PLAIN, len(paths), metric=metric)


def _open(folder: Path, paths: list[str], labels: list[int]) -> tuple[Found, NDArray[np.int64]]:
    return open_list(folder, paths, np.array(labels, np.int64), 2)


_TITLES = {
    "camelyon17-id": "Camelyon17 (ID)",
    "camelyon17-val": "Camelyon17 (validation hospital)",
    "camelyon17-ood": "Camelyon17 (OOD)",
    "waterbirds": "Waterbirds",
    "celeba-hair": "CelebA, hair",
}
_CAMELYON17_FOLDERS = ("camelyon17_v1.0", "wilds/camelyon17_v1.0", "camelyon17")
_WATERBIRDS_FOLDERS = (
    "waterbirds_v1.0",
    "wilds/waterbirds_v1.0",
    "waterbird_complete95_forest2water2",
    "waterbirds/waterbird_complete95_forest2water2",
    "waterbirds",
)
_CELEBA_FOLDERS = ("celebA_v1.0", "wilds/celebA_v1.0", "celeba", "celebA")
_KINDS: tuple[tuple[str, str, Callable[[Path], Dataset | None], tuple[str, ...], int], ...] = (
    ("camelyon17-id", "camelyon17", partial(_find_camelyon17, "id"), _CAMELYON17_FOLDERS, 33_560),
    ("camelyon17-val", "camelyon17", partial(_find_camelyon17, "val"), _CAMELYON17_FOLDERS, 34_904),
    ("camelyon17-ood", "camelyon17", partial(_find_camelyon17, "ood"), _CAMELYON17_FOLDERS, 85_054),
    ("waterbirds", "waterbirds", find_waterbirds, _WATERBIRDS_FOLDERS, 5_794),
    ("celeba-hair", "celebA", find_celeba, _CELEBA_FOLDERS, 19_962),
)

ENTRIES = tuple(
    Entry(
        name,
        _TITLES[name],
        find,
        places,
        expected,
        f"{places[0]}, as the package wilds downloads it (https://wilds.stanford.edu): "
        f"python wilds/download_datasets.py --datasets {package} --root_dir ROOT.",
        verified=False,
    )
    for name, package, find, places, expected in _KINDS
)

"""WILDS: FMoW (satellite photos) and iWildCam (camera traps), in and out of distribution.

Source: Koh et al. 2021 (arXiv 2012.07421). Splits, labels and metrics are those of the wilds package, from the lists
in its downloads. Knows nothing of models.
"""

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.layouts import Found
from mergekit_wise.datasets.listed import first_folder, number, open_list
from mergekit_wise.errors import SuiteError

Split = Literal["id", "ood"]

# As WILDS numbers them, and as the WiSE-FT authors put them into prompts: with their underscores.
_FMOW = (
    "airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint "
    "burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution "
    "electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course "
    "ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse "
    "military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park "
    "parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge recreational_facility "
    "road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm space_facility stadium "
    "storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal water_treatment_facility "
    "wind_farm zoo"
)
FMOW_CLASSES = tuple(_FMOW.split())

# The paper's 16. Two more of "a {}" stand for two that change the article to fit the name, which a prompt here cannot:
# for names that begin with a consonant they are the same, and every prompt keeps its weight.
_PLACES = ("", "", " in asia", " in africa", " in the americas", " in europe", " in oceania")
FMOW_TEMPLATES = (
    *(f"{view} photo of a {{}}{place}." for place in _PLACES for view in ("satellite", "aerial")),
    "a photo of a {}.",
    "{}.",
)
IWILDCAM_TEMPLATES = ("a photo of {}.", "{} in the wild.")

OTHER = "Other"
_OOD_SINCE = datetime(2016, 1, 1, tzinfo=UTC)
_ID_UNTIL = datetime(2013, 1, 1, tzinfo=UTC)


def _find_fmow(split: Split, root: Path) -> Dataset | None:
    """FMoW's test part, from 2016 on (`split` "ood") or before 2013 ("id"); the metric is the worst region's top-1."""
    folder = first_folder(root, _FMOW_FOLDERS, "rgb_metadata.csv", "country_code_mapping.csv")
    if folder is None:
        return None
    region_of = {row[0]: row[1] for row in _rows(folder / "country_code_mapping.csv", "alpha-3", "region")}
    paths, labels, regions = [], [], []
    class_of = number(FMOW_CLASSES)
    metadata = folder / "rgb_metadata.csv"
    wanted = ("split", "timestamp", "category", "country_code")
    for row, (part, time, category, country) in enumerate(_rows(metadata, *wanted)):
        if part != "test" or not _is_of(split, time, metadata, row):
            continue
        if category not in class_of:
            raise SuiteError(f"{metadata}: line {row + 2} has the unknown category {category[:40]!r}.")
        paths.append(f"images/rgb_img_{row}.png")
        labels.append(class_of[category])
        regions.append(region_of.get(country) or OTHER)
    found, kept = open_list(folder, paths, np.array(labels, np.int64), len(FMOW_CLASSES))
    metric = Metric("worst-group", _groups([regions[row] for row in kept]))
    return _dataset(f"fmow-{split}", found, FMOW_CLASSES, FMOW_TEMPLATES, metric)


def _is_of(split: Split, time: str, path: Path, row: int) -> bool:
    try:
        taken = datetime.fromisoformat(time)
    except ValueError as error:
        raise SuiteError(f"{path}: line {row + 2} has the time {time[:40]!r}: {error}.") from error
    taken = taken if taken.tzinfo else taken.replace(tzinfo=UTC)
    return taken >= _OOD_SINCE if split == "ood" else taken < _ID_UNTIL


def _groups(regions: list[str]) -> dict[str, NDArray[np.int64]]:
    """Samples by region; what belongs to none is in no group, as WILDS leaves it out of the worst."""
    told = np.array(regions)
    return {name: np.flatnonzero(told == name) for name in sorted(set(regions) - {OTHER})}


def _find_iwildcam(split: Split, root: Path) -> Dataset | None:
    """The test part of iWildCam at new camera traps (`split` "ood") or at those of training ("id"); metric macro F1."""
    folder = first_folder(root, _IWILDCAM_FOLDERS, "metadata.csv")
    if folder is None:
        return None
    metadata = folder / "metadata.csv"
    part = {"id": "id_test", "ood": "test"}[split]
    paths, labels, classes = [], [], 0
    for row, (of, name, told) in enumerate(_rows(metadata, "split", "filename", "y")):
        label = _label(told, metadata, row)
        classes = max(classes, label + 1)
        if of == part:
            paths.append(f"train/{name}")  # the images of all parts lie there
            labels.append(label)
    found, _ = open_list(folder, paths, np.array(labels, np.int64), classes)
    return _dataset(f"iwildcam-{split}", found, _animals(folder, classes), IWILDCAM_TEMPLATES, Metric("macro-f1"))


def _label(told: str, path: Path, row: int) -> int:
    if not told.isdecimal() or len(told) > 6:
        raise SuiteError(f"{path}: line {row + 2} has the class {told[:40]!r}, where a number was expected.")
    return int(told)


def _animals(folder: Path, classes: int) -> tuple[str, ...]:
    """English names, as in the paper's prompts, where the authors' list lies beside the data; else the Latin ones."""
    for file, column in (("labels.csv", "english"), ("categories.csv", "name")):
        if (folder / file).exists():
            # A class that does not occur has the number 99999, and there are several of those.
            names = {told: name.lower() for told, name in _rows(folder / file, "y", column)}
            if all(str(label) in names for label in range(classes)):
                return tuple(names[str(label)] for label in range(classes))
    raise SuiteError(
        f"{folder}: expected categories.csv of the download, with names for {classes} classes, or labels.csv, with "
        "English ones, of https://github.com/mlfoundations/wise-ft (src/datasets/iwildcam_metadata). Put one there."
    )


def _rows(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """What a table has in `columns`, row by row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if absent := [column for column in columns if column not in header]:
                raise SuiteError(f"{path}: expected the column {absent[0]!r}, found {', '.join(header)[:200]!r}.")
            places = [header.index(column) for column in columns]
            yield from (tuple(row[place] for place in places) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise SuiteError(f"{path}: expected a table with commas: {error}. Download it again.") from error


def _dataset(name: str, found: Found, classes: tuple[str, ...], templates: tuple[str, ...], metric: Metric) -> Dataset:
    return Dataset(
        name,
        _TITLES[name],
        classes,
        found.labels,
        found.image,
        templates=templates,
        metric=metric,
        sample=found.sample,
        expected=_EXPECTED[name],
        location=found.location,
        size=found.size,
    )


_TITLES = {
    "fmow-id": "FMoW (ID)",
    "fmow-ood": "FMoW (OOD)",
    "iwildcam-id": "iWildCam (ID)",
    "iwildcam-ood": "iWildCam (OOD)",
}
_EXPECTED = {"fmow-id": 11_327, "fmow-ood": 22_108, "iwildcam-id": 8_154, "iwildcam-ood": 42_791}
_FMOW_FOLDERS = ("fmow_v1.1", "wilds/fmow_v1.1", "fmow")
_IWILDCAM_FOLDERS = ("iwildcam_v2.0", "wilds/iwildcam_v2.0", "iwildcam")
_FINDERS: tuple[tuple[str, Split, Callable[[Split, Path], Dataset | None], tuple[str, ...]], ...] = (
    ("fmow", "id", _find_fmow, _FMOW_FOLDERS),
    ("fmow", "ood", _find_fmow, _FMOW_FOLDERS),
    ("iwildcam", "id", _find_iwildcam, _IWILDCAM_FOLDERS),
    ("iwildcam", "ood", _find_iwildcam, _IWILDCAM_FOLDERS),
)

ENTRIES = tuple(
    Entry(
        f"{name}-{split}",
        _TITLES[f"{name}-{split}"],
        partial(find, split),
        places,
        _EXPECTED[f"{name}-{split}"],
        f"{places[0]}, as the package wilds downloads it (https://wilds.stanford.edu): "
        f"python wilds/download_datasets.py --datasets {name} --root_dir ROOT.",
    )
    for name, split, find, places in _FINDERS
)

"""WILDS: FMoW (satellite photos) and iWildCam (camera traps), in and out of distribution.

Source: Koh et al. 2021 (arXiv 2012.07421). Splits, labels and metrics are those of the wilds package, read from the
lists in its downloads.
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
from mergekit_wise.datasets.layouts import first_folder, open_list, positions
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

Split = Literal["id", "ood"]

# In the order of WILDS' class numbers; the WiSE-FT authors' prompts have the underscores, too.
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

# The paper has 16 prompts. Two of them change the article to fit the class name, which a template here cannot: they are
# replaced by a second copy of the prompts with "a", which are equal for names that begin with a consonant.
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
    """FMoW's test part, from 2016 on (`split` "ood") or before 2013 ("id"). The metric is the worst region's top-1."""
    folder = first_folder(root, _FMOW_FOLDERS, "rgb_metadata.csv", "country_code_mapping.csv")
    if folder is None:
        return None
    region_of = {row[0]: row[1] for row in _rows(folder / "country_code_mapping.csv", "alpha-3", "region")}
    paths, labels, regions = [], [], []
    class_of = positions(FMOW_CLASSES)
    metadata = folder / "rgb_metadata.csv"
    columns = ("split", "timestamp", "category", "country_code")
    for row, (part, time, category, country) in enumerate(_rows(metadata, *columns)):
        if part != "test" or not _is_in_split(split, time, metadata, row):
            continue
        if category not in class_of:
            raise SuiteError(f"{metadata}: line {row + 2} has the unknown category {category[:40]!r}.")
        paths.append(f"images/rgb_img_{row}.png")
        labels.append(class_of[category])
        regions.append(region_of.get(country) or OTHER)
    found, kept = open_list(folder, paths, np.array(labels, np.int64), len(FMOW_CLASSES))
    metric = Metric("worst-group", _groups([regions[row] for row in kept]))
    name = f"fmow-{split}"
    return found.dataset(name, _TITLES[name], FMOW_CLASSES, FMOW_TEMPLATES, _EXPECTED[name], metric=metric)


def _is_in_split(split: Split, time: str, path: Path, row: int) -> bool:
    try:
        taken = datetime.fromisoformat(time)
    except ValueError as error:
        raise SuiteError(f"{path}: line {row + 2} has the time {time[:40]!r}: {error}.") from error
    taken = taken if taken.tzinfo else taken.replace(tzinfo=UTC)
    return taken >= _OOD_SINCE if split == "ood" else taken < _ID_UNTIL


def _groups(regions: list[str]) -> dict[str, NDArray[np.int64]]:
    """The indices of the samples of each region; WILDS leaves samples without a region out of the worst group."""
    array = np.array(regions)
    return {name: np.flatnonzero(array == name) for name in sorted(set(regions) - {OTHER})}


def _find_iwildcam(split: Split, root: Path) -> Dataset | None:
    """The test part from new camera traps (`split` "ood") or from those of training ("id"). The metric is macro F1."""
    folder = first_folder(root, _IWILDCAM_FOLDERS, "metadata.csv")
    if folder is None:
        return None
    metadata = folder / "metadata.csv"
    part = {"id": "id_test", "ood": "test"}[split]
    paths, labels, classes = [], [], 0
    for row, (row_part, file, text) in enumerate(_rows(metadata, "split", "filename", "y")):
        label = _label(text, metadata, row)
        classes = max(classes, label + 1)
        if row_part == part:
            paths.append(f"train/{file}")  # the images of all parts are in train/
            labels.append(label)
    found, _ = open_list(folder, paths, np.array(labels, np.int64), classes)
    name, animals = f"iwildcam-{split}", _animals(folder, classes)
    return found.dataset(name, _TITLES[name], animals, IWILDCAM_TEMPLATES, _EXPECTED[name], metric=Metric("macro-f1"))


def _label(text: str, path: Path, row: int) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise SuiteError(f"{path}: expected a class number in line {row + 2}, found {text[:40]!r}.")
    return int(text)


def _animals(folder: Path, classes: int) -> tuple[str, ...]:
    """English names, as in the paper's prompts, if the authors' list is next to the data; else Latin names."""
    for file, column in (("labels.csv", "english"), ("categories.csv", "name")):
        if (folder / file).exists():
            # Several classes that do not occur have the number 99999.
            names = {number: name.lower() for number, name in _rows(folder / file, "y", column)}
            if all(str(label) in names for label in range(classes)):
                return tuple(names[str(label)] for label in range(classes))
    raise SuiteError(
        f"{folder}: expected categories.csv from the download with the names of {classes} classes, or labels.csv with "
        "English names from https://github.com/mlfoundations/wise-ft (src/datasets/iwildcam_metadata). Put one of them "
        "in this folder."
    )


def _rows(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """The entries of each row in `columns`. Raises SuiteError if the file is not such a table."""
    refuse_web_page(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if absent := [column for column in columns if column not in header]:
                raise SuiteError(f"{path}: expected the column {absent[0]!r}, found {', '.join(header)[:200]!r}.")
            places = [header.index(column) for column in columns]
            yield from (tuple(row[place] for place in places) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise SuiteError(f"{path}: expected a table in CSV format: {error}. Download it again.") from error


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

"""List the known data sets and suites: which are found, and how to get the others."""

from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.datasets.catalog import ENTRIES, SUITES, data_root
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.option_types import takes
from mergekit_wise.options import SuitesOptions


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """A data set of the catalogue, and whether it is under the data folder.

    Attributes:
        images: the number of images found; None if the data set is missing or damaged.
        expected: the number of images in the complete data set; None if unknown.
        verified: whether that number was confirmed by the data set's own files.
        complete: whether the data set was found with the expected number of images, or with any if it is not verified.
        location: where it was found, relative to the data folder; None if it was not.
        problem: what is wrong with a damaged data set; None otherwise.
        places: the folders that are looked for, relative to the data folder.
        hint: what to download, and where to put it.
    """

    name: str
    title: str
    images: int | None
    expected: int | None
    verified: bool
    complete: bool
    location: str | None
    problem: str | None
    places: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class SuiteStatus:
    """A suite, the names of its data sets, and how many of them can be evaluated."""

    name: str
    title: str
    data_sets: tuple[str, ...]
    found: int


@dataclass(frozen=True, slots=True)
class SuitesReport:
    """The data folder, None if there is none, and the status of every data set and suite of the catalogue."""

    root: Path | None
    data_sets: tuple[DatasetStatus, ...]
    suites: tuple[SuiteStatus, ...]


@takes(SuitesOptions)
def suites(options: SuitesOptions) -> SuitesReport:
    """Look for every data set under `data`, or under the folder that ``WISE_DATA`` names.

    Images are counted, not decoded. Damaged data sets are listed with their problem. Raises SuiteError if the data
    folder does not exist.
    """
    root, progress, total = data_root(options.data), options.progress, len(ENTRIES)
    statuses = []
    for number, entry in enumerate(ENTRIES.values()):
        progress("Looking for data sets", number, total, "data sets")
        statuses.append(_status(entry, root))
    progress("Looking for data sets", total, total, "data sets")
    found = {status.name for status in statuses if status.images is not None}
    return SuitesReport(
        root,
        tuple(statuses),
        tuple(
            SuiteStatus(name, suite.title, suite.members, sum(member in found for member in suite.members))
            for name, suite in SUITES.items()
        ),
    )


def _status(entry: Entry, root: Path | None) -> DatasetStatus:
    dataset: Dataset | None = None
    problem = location = None
    try:
        dataset = entry.open(root)
    except SuiteError as error:
        problem = str(error)
    if dataset is not None:
        location = dataset.location
        if root is not None and Path(location).is_relative_to(root):
            location = str(Path(location).relative_to(root))
    images = None if dataset is None else len(dataset)
    # What the data set's own lists say is more exact than the catalogue.
    counted = None if dataset is None else dataset.expected
    return DatasetStatus(
        entry.name,
        entry.title,
        images,
        entry.expected if counted is None else counted,
        entry.verified or counted is not None,
        images is not None and counted in (None, images),
        location,
        problem,
        entry.places,
        entry.hint,
    )

"""List the known data sets and suites: which are found, and how to get the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.datasets.catalog import ENTRIES, SUITES, data_root, find_entries, member_of, plugins
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.option_types import takes
from mergekit_wise.options import SuitesOptions
from mergekit_wise.report.table import Table
from mergekit_wise.wording import plural


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
        notes: what was left out, mapped or guessed when it was opened.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SuiteStatus:
    """A suite, the names of its data sets, and how many of them can be evaluated."""

    name: str
    title: str
    data_sets: tuple[str, ...]
    found: int


@dataclass(frozen=True, slots=True, repr=False)
class SuitesReport(ResultObject):
    """The data folder, None if there is none, and the status of every data set and suite that is listed.

    `notes` says which packages' data sets cannot be used, if all are listed.
    """

    root: Path | None
    data_sets: tuple[DatasetStatus, ...]
    suites: tuple[SuiteStatus, ...]
    notes: tuple[str, ...] = ()

    def _summary(self) -> str:
        found = sum(each.images is not None for each in self.data_sets)
        under = "" if self.root is None else f" under {self.root}"
        return f"{found} of {plural(len(self.data_sets), 'data set')} found{under}"

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return map(asdict, self.data_sets)

    def _tables(self) -> Sequence[Table]:
        numbers = ((each, "" if each.images is None else f"{each.images:,}") for each in self.data_sets)
        rows = [(each.name, images, each.location or each.problem or each.hint) for each, images in numbers]
        suites = [(each.name, f"{each.found} of {len(each.data_sets)}", each.title) for each in self.suites]
        return [
            Table.of_texts(("Data set", "Images", "Where, or what to do"), rows),
            Table.of_texts(("Suite", "Data sets", ""), suites),
        ]


@takes(SuitesOptions)
def suites(options: SuitesOptions) -> SuitesReport:
    """Look for every data set of the catalogue, or for those that are named, such as the ones of a suite's TOML file.

    They are looked for under `data`, or under the folder that ``WISE_DATA`` names. Images are counted, not decoded.
    Damaged data sets are listed with their problem. Raises SuiteError if the data folder does not exist, or a name or
    a key of a TOML file is wrong.
    """
    root, progress = data_root(options.data), options.progress
    entries, listed = (ENTRIES, tuple(SUITES.values())) if options.names is None else find_entries(options.names)
    notes = tuple(failure.sentence for failure in plugins().failures) if options.names is None else ()
    statuses, total = [], len(entries)
    for number, entry in enumerate(entries.values()):
        progress("Looking for data sets", number, total, "data sets")
        statuses.append(_status(entry, root))
    progress("Looking for data sets", total, total, "data sets")
    found = {status.name for status in statuses if status.images is not None}
    return SuitesReport(
        root,
        tuple(statuses),
        tuple(
            SuiteStatus(suite.name, suite.title, members, sum(member in found for member in members))
            for suite in listed
            for members in [tuple(member_of(suite, member)[1].name for member in suite.members)]
        ),
        notes,
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
        () if dataset is None else dataset.notes,
    )

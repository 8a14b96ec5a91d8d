"""Which data sets are there, and what to put where for the others."""

from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.datasets.catalog import ENTRIES, SUITES, data_root
from mergekit_wise.datasets.entry import Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.option_types import takes
from mergekit_wise.options import SuitesOptions


@dataclass(frozen=True, slots=True)
class Shelf:
    """A data set of the catalogue, as it is under the root.

    ``images`` is None where it was not found; ``location`` is relative to the root; ``problem`` is what is wrong with
    what was found, empty if nothing is; ``places`` are the folders looked for, and ``hint`` what to put there.
    """

    name: str
    title: str
    images: int | None
    expected: int | None
    location: str
    problem: str
    places: tuple[str, ...]
    hint: str

    @property
    def complete(self) -> bool:
        """Whether it is there with as many images as it should have."""
        return self.images is not None and not self.problem and self.expected in (None, self.images)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All data sets of the catalogue, and all suites: name, title, names of their data sets."""

    root: Path | None
    shelves: tuple[Shelf, ...]
    suites: tuple[tuple[str, str, tuple[str, ...]], ...]

    def found(self, members: tuple[str, ...]) -> int:
        """How many of `members` can be evaluated."""
        return sum(shelf.images is not None and not shelf.problem for shelf in self.shelves if shelf.name in members)


@takes(SuitesOptions)
def suites(options: SuitesOptions) -> Inventory:
    """Look for every data set under `root`, or under what ``WISE_DATA`` names. Images are counted, not decoded.

    Raises SuiteError if there is no such folder; damaged data sets are listed as such.
    """
    root, progress = data_root(options.data), options.progress
    shelves = []
    for number, entry in enumerate(ENTRIES.values()):
        progress("Looking for data sets", number, len(ENTRIES), "data sets")
        shelves.append(_look(entry, root))
    progress("Looking for data sets", len(ENTRIES), len(ENTRIES), "data sets")
    plans = ((name, plan.title, (*filter(None, (plan.reference,)), *plan.shifts)) for name, plan in SUITES.items())
    return Inventory(root, tuple(shelves), tuple(plans))


def _look(entry: Entry, root: Path | None) -> Shelf:
    images, location, problem = None, "", ""
    try:
        dataset = entry.find(root or Path()) if root is not None or not entry.places else None
    except SuiteError as error:
        problem = str(error)
    else:
        if dataset is not None:
            images, location = len(dataset), dataset.location
    if root is not None and Path(location).is_relative_to(root):
        location = str(Path(location).relative_to(root))
    return Shelf(entry.name, entry.title, images, entry.expected, location, problem, entry.places, entry.hint)

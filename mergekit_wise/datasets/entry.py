"""One line of the catalogue: what a data set is called, where it is looked for, and how it is opened.

Knows nothing of any one data set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.datasets.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set that the catalogue knows by name.

    Attributes:
        name: for options and records ("imagenet-r"); `title` for tables ("ImageNet-R").
        find: opens the data set under a root; None where nothing is there. Raises SuiteError if what is there is
            damaged, and decodes no image.
        places: the folders that are looked for under the root, the usual one first.
        expected: images of the complete data set; None where nobody knows.
        hint: what to download, and where to put it.
    """

    name: str
    title: str
    find: Callable[[Path], Dataset | None]
    places: tuple[str, ...]
    expected: int | None
    hint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite: the names of its reference, None if it has none, and of its shifts."""

    title: str
    reference: str | None
    shifts: tuple[str, ...]

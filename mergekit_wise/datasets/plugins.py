"""Data sets of other installed packages, which name them by the entry point group `GROUP`.

The object of an entry point is an `Entry`, a list of them, or a function that returns one of the two. A package's code
is run when its data sets are needed and not before. What is wrong with it is a sentence, as the fault is neither of the
user nor of this package, and other data sets do not depend on it. Knows nothing of the built-in data sets but their
names.
"""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, shown

GROUP = "mergekit_wise.datasets"
"""The entry point group of data sets."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Failure:
    """An entry point whose data sets cannot be used: its package, the names that it may stand for, and why."""

    package: str
    names: tuple[str, ...]
    reason: str

    @property
    def sentence(self) -> str:
        """The failure for people."""
        return f"The data sets of the package {self.package} cannot be used: {self.reason}"


@dataclass(frozen=True, slots=True)
class Plugins:
    """The data sets of all packages by name, and what is wrong with packages whose data sets are not among them."""

    entries: Mapping[str, Entry]
    failures: tuple[Failure, ...]


def load_plugins(taken: Collection[str], points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Import the data sets of the installed packages.

    Args:
        taken: names that no package may use, those of built-in data sets and suites.
        points: the entry points, by default those of all installed packages.
    """
    entries: dict[str, list[tuple[str, Entry]]] = {}
    failures: list[Failure] = []
    found = entry_points(group=GROUP) if points is None else points
    for point in sorted(found, key=lambda point: (_package_of(point), point.name)):
        package = _package_of(point)
        try:
            loaded = _entries_of(point)
            _require_free(loaded, taken)
        except SuiteError as error:
            failures.append(Failure(package, (point.name,), str(error)))
            continue
        for entry in loaded:
            entries.setdefault(entry.name, []).append((package, entry))
    for name, several in entries.items():
        if len(several) > 1:
            packages = [package for package, _ in several]
            reason = f"the data set {name!r} is one of {listed(packages)}, and a name is that of one data set. "
            failures.append(Failure(packages[0], (name,), reason + "Uninstall all but one of these packages."))
    single = {name: several[0] for name, several in entries.items() if len(several) == 1}
    return Plugins(
        MappingProxyType({name: _watched(entry, package) for name, (package, entry) in single.items()}),
        tuple(failures),
    )


def names_of_points() -> tuple[str, ...]:
    """The names of all installed entry points, which packages are to call after their data sets; imports none."""
    return tuple(dict.fromkeys(filter(is_name, (point.name for point in entry_points(group=GROUP)))))


def is_name(text: str) -> bool:
    """Whether a data set of a package may be called so: a word, which no option and no path can mistake."""
    return _NAME.fullmatch(text) is not None and not text.endswith(".toml")


def _package_of(point: EntryPoint) -> str:
    return "" if point.dist is None else shown(point.dist.name)


def _entries_of(point: EntryPoint) -> list[Entry]:
    """The entries of one entry point. Raises SuiteError."""
    try:
        with redirect_stdout(sys.stderr):  # what a package prints is no result
            found = point.load()
            if callable(found):
                found = found()
        entries = [found] if isinstance(found, Entry) else list(found) if isinstance(found, Iterable) else [found]
    except (Exception, SystemExit) as error:  # whatever the code of another package raises
        raise SuiteError(f"{point.value} fails with {_described(error)}. Mend or uninstall the package.") from error
    for entry in entries:
        if not isinstance(entry, Entry):
            raise SuiteError(
                f"{point.value} gives {shown(type(entry).__name__)}; expected a mergekit_wise.Entry, a list of them, "
                "or a function that returns one of the two."
            )
        if not is_name(entry.name):
            raise SuiteError(
                f"{point.value} names a data set {entry.name!r}; expected letters, digits, dots, dashes and "
                "underscores."
            )
    return entries


def _require_free(entries: Iterable[Entry], taken: Collection[str]) -> None:
    names: set[str] = set()
    for entry in entries:
        if entry.name in taken:
            raise SuiteError(f"{entry.name!r} is the name of a built-in data set or suite. Choose another name.")
        if entry.name in names:
            raise SuiteError(f"two of them are called {entry.name!r}. Choose another name for one.")
        names.add(entry.name)


def _watched(entry: Entry, package: str) -> Entry:
    """An entry whose failures are SuiteErrors that name the package."""
    train = entry.find_train
    return replace(
        entry,
        find=partial(_found, entry.find, entry.name, package),
        find_train=None if train is None else partial(_found, train, entry.name, package),
    )


def _found(find: Callable[[Path], Dataset | None], name: str, package: str, root: Path) -> Dataset | None:
    where = f"{name}, of the package {package}"
    try:
        with redirect_stdout(sys.stderr):
            dataset = find(root)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of another package raises
        raise SuiteError(f"{where}: opening it fails with {_described(error)}.") from error
    if dataset is None:
        return None
    if not isinstance(dataset, Dataset):
        raise SuiteError(f"{where}: expected a mergekit_wise.Dataset or None, found {type(dataset).__name__}.")
    if dataset.name != name:
        raise SuiteError(f"{where}: the data set calls itself {dataset.name!r}. Both names must be the same.")
    labels, classes = dataset.labels, len(dataset.classnames)
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1 or not len(labels):
        raise SuiteError(f"{where}: expected labels as int64 [N] with N above 0.")
    if labels.min() < 0 or labels.max() >= classes:
        raise SuiteError(
            f"{where}: has labels from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}, which are the "
            "places of its class names."
        )
    return dataset


def _described(error: BaseException) -> str:
    """An error of another package in a line."""
    text = shown(str(error), 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

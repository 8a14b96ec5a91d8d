"""A suite as data: a TOML file with a reference, shifts, and tables of the data sets that they name.

    title = "Birds"
    reference = "photos"              # a table below, a known data set ("imagenet"), or a path relative to this file
    shifts = ["sketches", "night", "imagenet-r"]
    train = "photos-train"            # for `wise finetune --train`
    validate = ["photos"]             # for `wise finetune --validate`; by default the reference and the shifts

    [data.photos]                     # the keys of a TOML file with one data set (`custom`)
    root = "photos"

The suites that are built in are such files, too. This module knows no data set but those of the file; the catalogue
resolves the other names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.datasets.custom import KEYS as DATA_KEYS
from mergekit_wise.datasets.custom import entry_of, is_text, read_toml, require_keys, text_of
from mergekit_wise.datasets.dataset import Entry
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean, listed

KEYS = ("title", "reference", "shifts", "train", "validate", "data")
"""The keys that a suite may have."""

SEPARATOR = "::"
"""Between a suite's file and the name of one of its tables: ``birds.toml::photos``."""


@dataclass(frozen=True, slots=True)
class SuiteFile:
    """A suite as its file describes it: names, not yet resolved.

    Attributes:
        name: the file's, without its ending.
        title: for tables.
        reference: the name of the reference; None if the suite has none.
        shifts: the names of the shifts.
        train: the name of the training data; None if none is stated.
        validate: the names of the data sets to validate on; None for the reference and the shifts.
        entries: the data sets that the file describes, by name.
        path: the file.
    """

    name: str
    title: str
    reference: str | None
    shifts: tuple[str, ...]
    train: str | None
    validate: tuple[str, ...] | None
    entries: Mapping[str, Entry]
    path: Path

    @property
    def members(self) -> tuple[str, ...]:
        """The reference, if there is one, followed by the shifts."""
        return self.shifts if self.reference is None else (self.reference, *self.shifts)


def is_suite(table: Mapping[str, object]) -> bool:
    """Whether the content of a TOML file is a suite rather than one data set, perhaps with a slip in a key."""
    own = [key for key in KEYS if key not in DATA_KEYS]
    return any(key in own or ("root" not in table and did_you_mean(key, own)) for key in table)


def parse_suite(table: Mapping[str, object], path: Path) -> SuiteFile:
    """The suite that the content of the TOML file `path` describes.

    Raises SuiteError for a key or a value that is wrong, naming both. The images are not looked for.
    """
    where = str(path)
    if "root" in table:
        raise SuiteError(
            f"{where}: has both 'root', which describes one data set, and {_suite_keys(table)}, which describe a "
            "suite. Describe each data set of a suite in a table of its own, as in [data.photos]."
        )
    require_keys(table, KEYS, where)
    reference, train = text_of(table, "reference", where), text_of(table, "train", where)
    shifts, validate = _names(table, "shifts", where), _names(table, "validate", where)
    if reference is not None and reference in (shifts or ()):
        raise SuiteError(f"{where}: {reference!r} is both the reference and a shift. Remove it from one of them.")
    if reference is None and shifts is None and train is None:
        raise SuiteError(f"{where}: a suite needs the key 'reference', 'shifts' or 'train', and has none of them.")
    entries = dict(_entries(table, path))
    return SuiteFile(
        path.stem,
        text_of(table, "title", where) or path.stem,
        reference,
        shifts or (),
        train,
        validate,
        entries,
        path,
    )


def read_suite(path: Path) -> SuiteFile:
    """The suite in the TOML file `path`. Raises SuiteError."""
    return parse_suite(read_toml(path), path)


def _entries(table: Mapping[str, object], path: Path) -> Iterator[tuple[str, Entry]]:
    tables = table.get("data", {})
    if not isinstance(tables, dict):
        raise SuiteError(f"{path}: 'data' should hold tables of data sets, as in [data.photos], found {tables!r}.")
    for name, description in tables.items():
        where = f"{path}: [data.{name}]"
        if not isinstance(description, dict):
            raise SuiteError(f"{where} should be a table with the key 'root', found {description!r}.")
        if not is_text(name) or "," in name or SEPARATOR in name:
            raise SuiteError(f"{where}: the name of a data set is not empty and has no comma and no '{SEPARATOR}'.")
        yield name, entry_of(description, path, name, where)


def _names(table: Mapping[str, object], key: str, where: str) -> tuple[str, ...] | None:
    """A list of different names; a single one may be given as a string. None if the key is missing."""
    value = table.get(key)
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(map(is_text, names)):
        raise SuiteError(f"{where}: {key!r} should be a list of names or paths of data sets, found {value!r}.")
    if not names:
        raise SuiteError(f"{where}: {key!r} is empty. List at least one data set, or remove the key.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise SuiteError(f"{where}: {key!r} lists {twice[0]!r} {names.count(twice[0])} times. List it once.")
    return tuple(names)


def _suite_keys(table: Mapping[str, object]) -> str:
    return listed(repr(key) for key in KEYS if key in table and key not in DATA_KEYS)

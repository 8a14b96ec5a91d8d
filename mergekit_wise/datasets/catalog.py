"""The catalogue: all known data sets and suites by name, and how to open them, or a user's own, as one suite.

A module with data sets defines ``ENTRIES``, a tuple of :class:`Entry`, and is listed in `_MODULES`. A suite is a TOML
file in the folder ``suites`` (`suite_file`), which may also describe data sets. Other packages add data sets by an
entry point (`plugins`).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mergekit_wise.cache import keeping
from mergekit_wise.datasets import (
    cifar,
    clip_benchmark,
    digits,
    domainnet,
    imagenet,
    imagenet_9,
    imagenet_c,
    imagenet_d,
    imagenet_hard,
    imagenet_real,
    objectnet,
    transfer,
    video,
    wilds,
    wilds_binary,
)
from mergekit_wise.datasets.addresses import is_address, shown
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.custom import open_path, read_toml
from mergekit_wise.datasets.dataset import Dataset, Entry, Missing, Suite
from mergekit_wise.datasets.given import DatasetInMemory
from mergekit_wise.datasets.in_memory import open_labelled
from mergekit_wise.datasets.known_places import known_at, recognised, with_own_name
from mergekit_wise.datasets.own_folders import open_remote
from mergekit_wise.datasets.plugins import Plugins, is_name, load_plugins
from mergekit_wise.datasets.subsets import in_order_of, with_names
from mergekit_wise.datasets.suite_file import SEPARATOR, SuiteFile, is_suite, parse_suite, read_suite
from mergekit_wise.datasets.synthetic import SYNTHETIC, synthetic_suite
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean

ROOT_VARIABLE = "WISE_DATA"
"""The environment variable that names the data folder."""

NO_ROOT = f"No data folder given. Pass --data ROOT or set {ROOT_VARIABLE}."

Use = Literal["evaluate", "validate", "train", "recalibrate"]
"""What a suite is opened for: a suite's file may name data sets for validation and for training."""

_LEARNING: tuple[Use, ...] = ("train", "recalibrate")
"""The uses for which the training parts of data sets are opened, where they have them (see `splits`)."""

_MODULES = (
    imagenet,
    imagenet_real,
    objectnet,
    video,
    imagenet_d,
    imagenet_9,
    imagenet_hard,
    cifar,
    wilds,
    wilds_binary,
    domainnet,
    transfer,
    clip_benchmark,
    imagenet_c,
    digits,
)
_FILES = tuple(read_suite(path) for path in sorted(Path(__file__).with_name("suites").glob("*.toml")))

BUILT_IN: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for module in _MODULES for entry in module.ENTRIES}
    | {name: entry for file in _FILES for name, entry in file.entries.items()}
)

SUITES: Mapping[str, SuiteFile] = MappingProxyType({file.name: file for file in _FILES})


@cache
def plugins() -> Plugins:
    """The data sets of other packages, which are imported by the first call."""
    return load_plugins({*BUILT_IN, *SUITES})


class _Entries(Mapping[str, Entry]):
    """The built-in data sets, and those of other packages: imported for a name that is not built in, or for all."""

    def __getitem__(self, name: str) -> Entry:
        if name in BUILT_IN:
            return BUILT_IN[name]
        if name in SUITES or not is_name(name):  # no package is imported for a path
            raise KeyError(name)
        return plugins().entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*BUILT_IN, *plugins().entries))

    def __len__(self) -> int:
        return len(BUILT_IN) + len(plugins().entries)


ENTRIES: Mapping[str, Entry] = _Entries()


@dataclass(frozen=True, slots=True)
class _Selection:
    """The chosen data sets by key, and the keys of those that are references of suites.

    The key of a known data set is its name, that of a user's own one its path or its place in a suite's file.
    """

    references: tuple[str, ...]
    entries: Mapping[str, Entry]


def open_suite(
    names: str | Sequence[str],
    root: Path | None = None,
    *,
    reference: str | Path | None = None,
    use: Use = "evaluate",
    strict: bool = False,
    classnames: str | Path | Sequence[str] | None = None,
    templates: str | Path | Sequence[str] | None = None,
    keep: bool = True,
) -> Suite:
    """Open a suite or a data set by name, a user's own one by path, or several of these.

    The reference is that of the named suites. If they have different references, or none, there is no reference.
    Data sets that are not found are listed in ``missing``. No image is decoded.

    Args:
        names: suites and data sets, in a list or separated by commas: names, which take precedence over folders of
            the same name; paths of folders and of TOML files; addresses of tars, such as
            ``https://host/birds/{00..05}.tar``; ``FILE.toml::TABLE`` for a data set of a suite's file;
            ``synthetic:NAME`` for corruptions of NAME. Or data sets in memory.
        root: the data folder; None for the folder that ``WISE_DATA`` names.
        reference: a data set by name or path, or in memory, that is the reference in place of the suites' own.
        use: which data sets of a suite's file are opened.
        strict: whether a missing data set is an error.
        classnames: replace the class names of every data set; see `read_classnames`.
        templates: replace the templates of every data set; see `read_templates`.
        keep: whether listings of tars at addresses may be read from the cache and stored in it.

    Raises:
        SuiteError: a name is unknown, no data set is found, or one is damaged.
    """
    names = names if isinstance(names, str) else ",".join(names)
    first, _, rest = names.partition(":")
    if first == SYNTHETIC and not isinstance(names, DatasetInMemory):
        if not rest:
            raise SuiteError(f"{names}: expected a data set to corrupt after a colon, as in synthetic:imagenet.")
        if reference is not None:
            raise SuiteError(f"{names}: its reference is {rest}; leave out --reference.")
        return synthetic_suite(
            open_suite(rest, root, use=use, strict=strict, classnames=classnames, templates=templates, keep=keep)
        )
    root = data_root(root)
    if reference is not None and not isinstance(reference, DatasetInMemory):
        reference = str(reference)
    selection = _select(names, use, reference)
    part = "train" if use in _LEARNING else "test"
    with keeping(keep):
        opened = {key: _open(entry, root, part) for key, entry in selection.entries.items()}
    missing = tuple(_missing(selection.entries[key], root) for key, dataset in opened.items() if dataset is None)
    if missing and (strict or len(missing) == len(opened)):
        raise SuiteError(_not_found(suite_name(names), missing, root))
    notes: list[str] = []
    new_classnames = None if classnames is None else read_classnames(classnames, notes.append)
    new_templates = None if templates is None else read_templates(templates, notes.append)
    chosen = selection.references[0] if len(selection.references) == 1 else ""
    if use == "train":
        opened |= {k: _noted(names, selection.entries[k], root, d) for k, d in opened.items() if d is not None}
    found = opened.get(chosen)
    datasets: dict[str, Dataset] = {}
    for key, dataset in opened.items():
        if dataset is not None:
            ordered = dataset if found is None else in_order_of(found, dataset)
            datasets[key] = with_names(ordered, new_classnames, new_templates, found)
    first = next(iter(datasets))  # said once, not for each data set
    if not isinstance(names, DatasetInMemory):
        notes += [*_notes_on_folders(names, datasets.values()), *_notes_on_plugins(names)]
    datasets[first] = replace(datasets[first], notes=(*notes, *datasets[first].notes))
    _require_unique_names(datasets)
    shifts = tuple(dataset for key, dataset in datasets.items() if key != chosen)
    return Suite(suite_name(names, reference), datasets.get(chosen), shifts, missing)


def find_entries(names: str) -> tuple[Mapping[str, Entry], tuple[SuiteFile, ...]]:
    """All data sets that suites, data sets and paths name, by key, and the suites among these.

    Those of a suite's file are the ones to evaluate, to validate and to train on, and the rest of its tables. Raises
    SuiteError.
    """
    entries: dict[str, Entry] = {}
    suites: list[SuiteFile] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        suite = SUITES.get(name) or _own_suite(name)
        if suite is None:
            entries |= [_named(name)]
            continue
        suites.append(suite)
        train = () if suite.train is None else (suite.train,)
        for member in dict.fromkeys((*suite.members, *(suite.validate or ()), *train, *suite.entries)):
            entries |= [member_of(suite, member)]
    return entries, tuple(suites)


def suite_name(names: str, reference: str | Path | None = None) -> str:
    """The name that records have for a suite: of a suite's file, the file's name without its ending.

    Addresses are without what may be secret.
    """
    parts = [_public(part.strip()) for part in names.split(",")]
    name = ",".join(file.name if (file := _own_suite(part)) else part for part in parts)
    if reference is None:
        return name
    other = _public(str(reference))
    return f"{name} (reference {other})" if name else other


def _public(name: str) -> str:
    """What may be shown of a name that may be an address."""
    return shown(name) if is_address(name) else name


def data_root(root: Path | None) -> Path | None:
    """The data folder: `root`, or else what ``WISE_DATA`` names, or else None. Raises SuiteError if it is no folder."""
    variable = os.environ.get(ROOT_VARIABLE)
    chosen = Path(variable) if root is None and variable else root
    if chosen is not None and not chosen.is_dir():
        raise SuiteError(f"{ROOT_VARIABLE if root is None else '--data'} {chosen}: no such folder.")
    return chosen


def _select(names: str, use: Use, reference: str | None) -> _Selection:
    """The data sets that are named, each once. Raises SuiteError."""
    entries: dict[str, Entry] = {}
    references: dict[str, None] = {}
    if isinstance(reference, DatasetInMemory):
        if len(reference.given) != 1:
            raise SuiteError(f"--reference: expected one data set, found {len(reference.given)}: {reference}.")
        entries |= _given(reference)
        references |= dict.fromkeys(entries)
    elif reference is not None:
        key, entry = _named(reference)
        entries[key], references[key] = entry, None
    if isinstance(names, DatasetInMemory):
        entries |= _given(names)
        names = ""
    for name in filter(None, (part.strip() for part in names.split(","))):
        suite = SUITES.get(name) or _own_suite(name)
        if suite is None:
            key, entry = _named(name)
            entries.setdefault(key, entry)
            continue
        name_of: dict[str, str] = {}
        for member in _used(suite, use):
            key, entry = member_of(suite, member)
            if name_of.setdefault(key, member) != member:
                raise SuiteError(f"{suite.path}: {member!r} and {name_of[key]!r} are the same data set. Name it once.")
            entries.setdefault(key, entry)
            if member == suite.reference and reference is None:
                references[key] = None
    if not entries:
        raise SuiteError(f"No suite given. Known suites: {', '.join(SUITES)}.")
    return _Selection(tuple(references), entries)


def _given(data: DatasetInMemory) -> dict[str, Entry]:
    """Key and entry of each data set in memory; the same one given twice has one key."""
    opened = open_labelled(data)
    return {
        f"{name} ({type(items).__name__} {id(items)})": Entry(
            name, name, partial(_already_open, opened[name]), (), None, ""
        )
        for name, items in data.given.items()
    }


def _already_open(dataset: Dataset, root: Path) -> Dataset:
    """The function of the entry of a data set in memory."""
    return dataset


def _noted(names: str, entry: Entry, root: Path | None, dataset: Dataset) -> Dataset:
    """Training data, with a note if its suite is evaluated on the same images."""
    suite = _own_suite(names.strip())
    if suite is None or suite.train not in suite.members:
        return dataset
    try:
        evaluated = entry.open(root, "test")
    except SuiteError:  # it has a training part alone
        return dataset
    if evaluated is None or evaluated.sample(0) != dataset.sample(0):
        return dataset
    note = f"is also evaluated in {suite.path.name}; after training on it, accuracy on it says little"
    return replace(dataset, notes=(*dataset.notes, note))


def _used(suite: SuiteFile, use: Use) -> tuple[str, ...]:
    """The names of the suite's data sets to open."""
    if use == "validate" and suite.validate is not None:
        return suite.validate
    if use in _LEARNING and suite.train is not None:
        return (suite.train,)
    if use == "train":
        raise SuiteError(
            f"{suite.path.name}: names no training data. Add train = ... to it, or give --train one data set."
            if suite.name not in SUITES
            else f"{suite.name}: is a suite to evaluate on and names no training data. Give --train one data set."
        )
    if not suite.members:
        raise SuiteError(f"{suite.path}: names nothing to evaluate on. Add reference = ... or shifts = [...].")
    return suite.members


def _own_suite(name: str) -> SuiteFile | None:
    """The suite in the TOML file `name`; None if there is no such file, or one data set in it."""
    path = Path(name)
    if name in SUITES or path.suffix != ".toml" or not path.is_file():
        return None
    table = read_toml(path)
    if not is_suite(table):
        return None
    suite = parse_suite(table, path)
    if suite.name in SUITES:
        raise SuiteError(f"{path}: {suite.name!r} is the name of a built-in suite. Rename the file.")
    if taken := [entry for entry in suite.entries if entry in BUILT_IN]:
        raise SuiteError(
            f"{path}: [data.{taken[0]}]: {taken[0]!r} is the name of a built-in data set. Choose another name."
        )
    return suite


def member_of(suite: SuiteFile, name: str) -> tuple[str, Entry]:
    """Key and entry of a data set that a suite names: one of its tables, a known data set, or a path."""
    if name in BUILT_IN:
        return name, BUILT_IN[name]
    if name in suite.entries:
        return f"{suite.path}{SEPARATOR}{name}", suite.entries[name]
    if name in ENTRIES:
        return name, ENTRIES[name]
    if is_address(name):
        return _remote(name)
    _require_working(name)
    path = suite.path.parent / Path(name).expanduser()
    if name in SUITES or _own_suite(str(path)):
        raise SuiteError(f"{suite.path}: {name!r} is a suite; a suite consists of data sets. Name these.")
    if not path.exists():
        known = (*suite.entries, *ENTRIES, *sorted(os.listdir(suite.path.parent)))
        raise SuiteError(
            f"{suite.path}: {name!r} is not one of its tables ([data.{name}]), no known data set, and there is no "
            f"{path}.{did_you_mean(name, known)}"
        )
    return _at(path)


def _named(name: str) -> tuple[str, Entry]:
    """Key and entry of one data set by name or path. Raises SuiteError."""
    if name in ENTRIES:
        return name, ENTRIES[name]
    if is_address(name):
        return _remote(name)
    _require_working(name)
    file, separator, table = name.rpartition(SEPARATOR)
    if separator and (suite := _own_suite(file)):
        if table not in suite.entries:
            raise SuiteError(f"{file}: has no table [data.{table}].{did_you_mean(table, suite.entries)}")
        return member_of(suite, table)
    if name in SUITES or _own_suite(name):
        raise SuiteError(f"{name}: is a suite; expected one data set.")
    if Path(name).exists():
        return _at(Path(name))
    if os.sep in name or name.endswith(".toml"):
        raise SuiteError(
            f"{name}: no such folder or file. Expected a folder with class folders or with tars in test/, a TOML file, "
            "or a CSV file of paths and labels."
        )
    raise SuiteError(
        f"{name!r}: no suite, data set or folder has this name.{did_you_mean(name, (*SUITES, *ENTRIES))} "
        f"Known suites: {', '.join(SUITES)}. Run 'wise suites' to list all data sets."
        + "".join(f"\n{failure.sentence}" for failure in plugins().failures)
    )


def _require_working(name: str) -> None:
    """Raise SuiteError if a package names this data set and it cannot be used, even if a folder here has the name."""
    if is_name(name) and name not in SUITES:
        for failure in plugins().failures:
            if name in failure.names:
                raise SuiteError(f"{name}: {failure.sentence}")


def _at(path: Path) -> tuple[str, Entry]:
    """Key and entry of the data set at a path that exists."""
    name = path.stem if path.suffix == ".toml" else path.resolve().name
    find, find_train = (partial(_open_path, path, part) for part in ("test", "train"))
    return str(path.resolve()), Entry(name, name, find, (), None, "", find_train=find_train)


def _remote(address: str) -> tuple[str, Entry]:
    """Key and entry of the data set in the tars at an address."""
    from mergekit_wise.datasets.remote_tars import name_of  # brings all of urllib

    name = name_of(address)
    return address, Entry(name, name, partial(_open_remote, address), (), None, "", find_train=None)


def _open_remote(address: str, root: Path) -> Dataset:
    """The function of an entry at an address, wherever the data folder `root` is."""
    return with_own_name(recognised(open_remote(address), BUILT_IN), BUILT_IN)


def _open_path(path: Path, part: str, root: Path) -> Dataset:
    """The functions of an entry at a path, wherever the data folder `root` is."""
    known = known_at(path, part, BUILT_IN)
    return known or with_own_name(recognised(open_path(path, part), BUILT_IN), BUILT_IN)


def _open(entry: Entry, root: Path | None, part: str) -> Dataset | None:
    """The data set of an entry. The data folder may be the folder of this data set itself."""
    found = entry.open(root, part)
    return found if found or root is None or not entry.places else known_at(root, part, {entry.name: entry})


def _notes_on_folders(names: str, datasets: Iterable[Dataset]) -> list[str]:
    """A note for each built-in name that is also that of a folder here, which is not read."""
    folders = [name for name in map(str.strip, names.split(",")) if Path(name).is_dir()]
    here = [name for name in folders if name in SUITES or name in ENTRIES]
    places = [Path(dataset.location).absolute() for dataset in datasets]
    return [
        f"{name} is the built-in name; the folder here of this name is ./{name}"
        for name in here
        if not any(place.is_relative_to(Path(name).absolute()) for place in places)
    ]


def _notes_on_plugins(names: str) -> list[str]:
    """What is wrong with packages that were imported to look for one of the names, which may have been theirs."""
    asked = [name for name in map(str.strip, names.split(",")) if is_name(name)]
    if all(name in SUITES or name in BUILT_IN for name in asked):
        return []
    return [failure.sentence for failure in plugins().failures]


def _missing(entry: Entry, root: Path | None) -> Missing:
    places = () if root is None else tuple(str(root / place) for place in entry.places)
    return Missing(entry.name, entry.title, places, entry.hint)


def _not_found(names: str, missing: Sequence[Missing], root: Path | None) -> str:
    if root is None:
        folder = f" For the folder {names} here, write ./{names}." if Path(names).is_dir() else ""
        return f"{names}: not found. {NO_ROOT}{folder}"
    by_hint: dict[str, list[Missing]] = {}
    for dataset in missing:
        by_hint.setdefault(dataset.hint, []).append(dataset)
    lines = [f"{names}: not found under {root}:"]
    for hint, datasets in by_hint.items():
        others = f" and {len(datasets) - 1} others" if len(datasets) > 1 else ""
        places = ", ".join(os.path.relpath(place, root) for place in datasets[0].places)
        lines.append(f"{datasets[0].title}{others}: looked for {places}. {hint}")
    return "\n".join(lines)


def _require_unique_names(datasets: Mapping[str, Dataset]) -> None:
    """Raise SuiteError if two data sets have the same name or title: records are identified by one, columns by both."""
    in_memory = [dataset.name for dataset in datasets.values() if dataset.content is not None]
    if twice := [name for name in in_memory if sum(each.name == name for each in datasets.values()) > 1]:
        raise SuiteError(f"{twice[0]}: two data sets have this name. Name those in memory, as in {{'NAME': data}}.")
    key_of: dict[str, str] = {}
    titled: dict[str, str] = {}
    for key, dataset in datasets.items():
        if key_of.setdefault(dataset.name, key) != key:
            raise SuiteError(
                f"{_public(key)}: its name {dataset.name!r} is already that of {_public(key_of[dataset.name])}. "
                "Describe it in a TOML file with another name; the data set is named after that file."
            )
        if titled.setdefault(dataset.title, key) != key:
            raise SuiteError(
                f"{_public(key)}: its title {dataset.title!r} is already that of {_public(titled[dataset.title])}. "
                "Choose another title."
            )

"""The catalogue: all known data sets and suites by name, and how to open them.

A module with data sets defines ``ENTRIES``, a tuple of :class:`Entry`, and is listed in `_MODULES`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mergekit_wise.datasets import cifar, digits, imagenet, imagenet_c, objectnet, transfer, video, wilds
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.custom import open_folder, open_toml
from mergekit_wise.datasets.dataset import Dataset, Entry, Missing, Suite
from mergekit_wise.datasets.subsets import with_names
from mergekit_wise.datasets.synthetic import SYNTHETIC, synthetic_suite
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean

ROOT_VARIABLE = "WISE_DATA"
"""The environment variable that names the data folder."""

NO_ROOT = f"No data folder given. Pass --data ROOT or set {ROOT_VARIABLE}."


@dataclass(frozen=True, slots=True)
class SuiteDefinition:
    """The names of a suite's reference, None if it has none, and of its shifts."""

    title: str
    reference: str | None
    shifts: tuple[str, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """The reference, if there is one, followed by the shifts."""
        return self.shifts if self.reference is None else (self.reference, *self.shifts)


_MODULES = (imagenet, objectnet, video, cifar, wilds, transfer, imagenet_c, digits)

ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for module in _MODULES for entry in module.ENTRIES})

SUITES: Mapping[str, SuiteDefinition] = MappingProxyType(
    {
        "imagenet-shifts": SuiteDefinition(
            "ImageNet and five natural shifts",
            "imagenet",
            ("imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"),
        ),
        "imagenet-video": SuiteDefinition(
            "Neighbouring frames of videos", "imagenet", ("imagenet-vid-robust", "ytbb-robust")
        ),
        "cifar-shifts": SuiteDefinition("CIFAR-10 and its remakes", "cifar10", ("cifar10.1", "cifar10.2")),
        "wilds": SuiteDefinition("FMoW and iWildCam", None, ("fmow-id", "fmow-ood", "iwildcam-id", "iwildcam-ood")),
        "transfer": SuiteDefinition(
            "The seven sets of the paper's Table 2",
            None,
            ("imagenet", "cifar10", "cifar100", "cars", "dtd", "sun397", "food101"),
        ),
        "imagenet-c": SuiteDefinition(
            "Corrupted ImageNet", "imagenet", tuple(entry.name for entry in imagenet_c.ENTRIES)
        ),
        "digits": SuiteDefinition(
            "Handwritten digits and shifts of them, built in",
            "digits",
            tuple(entry.name for entry in digits.ENTRIES[1:]),
        ),
    }
)


def open_suite(
    names: str,
    root: Path | None = None,
    *,
    strict: bool = False,
    classnames: str | Path | Sequence[str] | None = None,
    templates: str | Path | Sequence[str] | None = None,
) -> Suite:
    """Open a suite or a data set by name, a user's own data set by path, or a comma-separated list of these.

    The reference is that of the named suites. If they have different references, or none, there is no reference.
    Data sets that are not found are listed in ``missing``. No image is decoded.

    Args:
        names: suites and data sets; paths of folders and of TOML files; ``synthetic:NAME`` for corruptions of NAME.
        root: the data folder; None for the folder that ``WISE_DATA`` names.
        strict: whether a missing data set is an error.
        classnames: replace the class names of every data set; see `read_classnames`.
        templates: replace the templates of every data set; see `read_templates`.

    Raises:
        SuiteError: a name is unknown, no data set is found, or one is damaged.
    """
    first, _, rest = names.partition(":")
    if first == SYNTHETIC:
        if not rest:
            raise SuiteError(f"{names}: expected a data set to corrupt after a colon, as in synthetic:imagenet.")
        return synthetic_suite(open_suite(rest, root, strict=strict, classnames=classnames, templates=templates))
    root = data_root(root)
    reference, members = _members(names)
    opened = {member: _open(member, root) for member in members}
    missing = tuple(_missing(ENTRIES[member], root) for member, dataset in opened.items() if dataset is None)
    if missing and (strict or len(missing) == len(opened)):
        raise SuiteError(_not_found(names, missing, root))
    notes: list[str] = []
    new_classnames = None if classnames is None else read_classnames(classnames, notes.append)
    new_templates = None if templates is None else read_templates(templates, notes.append)
    datasets = {m: with_names(d, new_classnames, new_templates) for m, d in opened.items() if d is not None}
    first, dataset = next(iter(datasets.items()))
    datasets[first] = replace(dataset, notes=(*dataset.notes, *notes))  # once, not for each data set
    _require_unique_names(datasets)
    shifts = tuple(dataset for member, dataset in datasets.items() if member != reference)
    return Suite(names, datasets.get(reference or ""), shifts, missing)


def data_root(root: Path | None) -> Path | None:
    """The data folder: `root`, or else what ``WISE_DATA`` names, or else None. Raises SuiteError if it is no folder."""
    variable = os.environ.get(ROOT_VARIABLE)
    chosen = Path(variable) if root is None and variable else root
    if chosen is not None and not chosen.is_dir():
        raise SuiteError(f"{ROOT_VARIABLE if root is None else '--data'} {chosen}: no such folder.")
    return chosen


def _members(names: str) -> tuple[str | None, tuple[str, ...]]:
    """The reference, and all data sets including it, each once."""
    members: dict[str, None] = {}
    references: set[str] = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in SUITES:
            members |= dict.fromkeys(SUITES[name].members)
            references |= {SUITES[name].reference or ""} - {""}
        else:
            members[_checked(name)] = None
    if not members:
        raise SuiteError(f"No suite given. Known suites: {', '.join(SUITES)}.")
    return references.pop() if len(references) == 1 else None, tuple(members)


def _checked(name: str) -> str:
    if name in ENTRIES or Path(name).exists():
        return name
    if os.sep in name or name.endswith(".toml"):
        raise SuiteError(
            f"{name}: no such folder or file. Expected a folder with class folders or with tars in test/, or a TOML "
            "file."
        )
    raise SuiteError(
        f"{name!r}: no suite, data set or folder has this name.{did_you_mean(name, (*SUITES, *ENTRIES))} "
        f"Known suites: {', '.join(SUITES)}. Run 'wise suites' to list all data sets."
    )


def _open(member: str, root: Path | None) -> Dataset | None:
    if member in ENTRIES:
        return ENTRIES[member].open(root)
    return open_toml(Path(member)) if Path(member).is_file() else open_folder(Path(member))


def _missing(entry: Entry, root: Path | None) -> Missing:
    places = () if root is None else tuple(str(root / place) for place in entry.places)
    return Missing(entry.name, entry.title, places, entry.hint)


def _not_found(names: str, missing: Sequence[Missing], root: Path | None) -> str:
    if root is None:
        return f"{names}: not found. {NO_ROOT}"
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
    """Raise SuiteError if two data sets have the same name, because records are identified by it."""
    member_of: dict[str, str] = {name: name for name in ENTRIES}
    for member, dataset in datasets.items():
        if member_of.setdefault(dataset.name, member) != member:
            raise SuiteError(
                f"{member}: its name {dataset.name!r} is already that of {member_of[dataset.name]}. "
                "Describe it in a TOML file with another name; the data set is named after that file."
            )

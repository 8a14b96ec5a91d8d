"""The data sets and suites by name. Knows which there are, and how parts become a suite; not what is in them.

A module that opens data sets defines ``ENTRIES``, a tuple of :class:`Entry`, which stands in `_ALL` below.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from mergekit_wise.datasets import cifar, digits, imagenet, imagenet_c, objectnet, transfer, video, wilds
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.custom import open_folder, open_toml
from mergekit_wise.datasets.dataset import Dataset, Missing, Suite
from mergekit_wise.datasets.entry import Entry, Plan
from mergekit_wise.datasets.subsets import with_names
from mergekit_wise.datasets.synthetic import SYNTHETIC, synthetic_suite
from mergekit_wise.errors import SuiteError

ROOT_VARIABLE = "WISE_DATA"
"""The environment variable that says where data sets are."""

_ALL: tuple[tuple[Entry, ...], ...] = (
    imagenet.ENTRIES,
    objectnet.ENTRIES,
    video.ENTRIES,
    cifar.ENTRIES,
    wilds.ENTRIES,
    transfer.ENTRIES,
    imagenet_c.ENTRIES,
    digits.ENTRIES,
)

ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entries in _ALL for entry in entries})

SUITES: Mapping[str, Plan] = MappingProxyType(
    {
        "imagenet-shifts": Plan(
            "ImageNet and five natural shifts",
            "imagenet",
            ("imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"),
        ),
        "imagenet-video": Plan("Neighbouring frames of videos", "imagenet", ("imagenet-vid-robust", "ytbb-robust")),
        "cifar-shifts": Plan("CIFAR-10 and its remakes", "cifar10", ("cifar10.1", "cifar10.2")),
        "wilds": Plan("FMoW and iWildCam", None, ("fmow-id", "fmow-ood", "iwildcam-id", "iwildcam-ood")),
        "transfer": Plan(
            "The seven sets of the paper's Table 2",
            None,
            ("imagenet", "cifar10", "cifar100", "cars", "dtd", "sun397", "food101"),
        ),
        "imagenet-c": Plan("Corrupted ImageNet", "imagenet", tuple(entry.name for entry in imagenet_c.ENTRIES)),
        "digits": Plan(
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
    """A suite or a data set by name, a user's own by path, or several of these with commas between them.

    The suites' reference is the suite's; if several suites are asked for that have different ones, or none, there is
    no reference. A data set that is not there is listed in ``missing``; no image is decoded.

    Args:
        names: of suites and data sets; paths of folders and of TOML files; ``synthetic:NAME`` for corruptions of one.
        root: the folder under which data sets are looked for; that which ``WISE_DATA`` names where it is None.
        strict: whether a missing data set is an error.
        classnames: in place of those of every data set; see `read_classnames`.
        templates: in place of those of every data set; see `read_templates`.

    Raises:
        SuiteError: a name is unknown, nothing is there, or what is there is damaged.
    """
    first, _, rest = names.partition(":")
    if first == SYNTHETIC:
        if not rest:
            raise SuiteError(f"{names}: expected the data set to corrupt behind a colon, as in synthetic:imagenet.")
        return synthetic_suite(open_suite(rest, root, strict=strict, classnames=classnames, templates=templates))
    root = data_root(root)
    reference, members = _members(names)
    opened = {member: _open(member, root) for member in members}
    missing = tuple(_missing(ENTRIES[member], root) for member, dataset in opened.items() if dataset is None)
    if missing and (strict or len(missing) == len(opened)):
        raise SuiteError(_lost(names, missing, root))
    names_of_classes = None if classnames is None else read_classnames(classnames)
    prompts = None if templates is None else read_templates(templates)
    datasets = {m: with_names(d, names_of_classes, prompts) for m, d in opened.items() if d is not None}
    _require_one_name(datasets)
    shifts = tuple(dataset for member, dataset in datasets.items() if member != reference)
    return Suite(names, datasets.get(reference or ""), shifts, missing)


def data_root(root: Path | None) -> Path | None:
    """`root`, else what ``WISE_DATA`` names, else None; SuiteError if it is no folder."""
    told = os.environ.get(ROOT_VARIABLE)
    chosen = Path(told) if root is None and told else root
    if chosen is not None and not chosen.is_dir():
        source = f"{ROOT_VARIABLE} names" if root is None else "--data names"
        raise SuiteError(f"{source} {chosen} as the folder of data sets; there is no such folder.")
    return chosen


def _members(names: str) -> tuple[str | None, tuple[str, ...]]:
    """The reference, and all data sets with it, each once."""
    members: dict[str, None] = {}
    references: set[str] = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name in SUITES:
            plan = SUITES[name]
            own = () if plan.reference is None else (plan.reference,)
            references |= set(own)
            members |= dict.fromkeys((*own, *plan.shifts))
        else:
            members[_known(name)] = None
    if not members:
        raise SuiteError(f"No suite was named. Known suites: {', '.join(SUITES)}.")
    return references.pop() if len(references) == 1 else None, tuple(members)


def _known(name: str) -> str:
    if name in ENTRIES or Path(name).exists():
        return name
    if os.sep in name or name.endswith(".toml"):
        raise SuiteError(f"{name}: no such folder or file. Expected class folders, tars in test/, or a TOML file.")
    near = get_close_matches(name, (*SUITES, *ENTRIES))
    meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise SuiteError(
        f"There is no suite or data set {name!r}, nor a folder of that name. {meant}"
        f"Known suites: {', '.join(SUITES)}. 'wise suites' lists the data sets."
    )


def _open(member: str, root: Path | None) -> Dataset | None:
    if member not in ENTRIES:
        return open_toml(Path(member)) if Path(member).is_file() else open_folder(Path(member))
    entry = ENTRIES[member]
    # What has no places is built in.
    return entry.find(root or Path()) if root is not None or not entry.places else None


def _missing(entry: Entry, root: Path | None) -> Missing:
    places = () if root is None else tuple(str(root / place) for place in entry.places)
    return Missing(entry.name, entry.title, places, entry.hint)


def _lost(names: str, missing: Sequence[Missing], root: Path | None) -> str:
    if root is None:
        return f"{names}: no folder of data sets was told. Give it with --data ROOT, or set {ROOT_VARIABLE}."
    by_hint: dict[str, list[Missing]] = {}
    for part in missing:
        by_hint.setdefault(part.hint, []).append(part)
    lines = (f"{_titles(parts)}: looked for {_shown(parts[0], root)}. {hint}" for hint, parts in by_hint.items())
    return f"{names}: not found under {root}:\n" + "\n".join(lines)


def _titles(parts: Sequence[Missing]) -> str:
    return parts[0].title if len(parts) == 1 else f"{parts[0].title} and {len(parts) - 1} others"


def _shown(part: Missing, root: Path) -> str:
    return ", ".join(os.path.relpath(place, root) for place in part.places)


def _require_one_name(datasets: Mapping[str, Dataset]) -> None:
    """Records are told apart by the data set's name."""
    taken: dict[str, str] = {name: name for name in ENTRIES}
    for member, dataset in datasets.items():
        if taken.setdefault(dataset.name, member) != member:
            raise SuiteError(
                f"{member}: its name {dataset.name!r} is already that of {taken[dataset.name]}. "
                "Tell of it in a TOML file, whose name will be the data set's."
            )

"""Which part of a data set is opened: the training part to learn from, or the test part to judge on.

One function decides for every layout, so that no layout guesses: class folders, tars, parquet files and tables give the
names of their parts. This module knows nothing of labels or images.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed

Role = Literal["train", "validation", "test"]

_ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}


class Choice(NamedTuple):
    """The name of the part to open, and sentences on the choice; none where there was nothing to choose."""

    name: str
    notes: tuple[str, ...] = ()


def role_of(name: str) -> Role | None:
    """The role that a name such as ``Train`` or ``valid`` states; None for any other name."""
    return _ROLES.get(name.strip().casefold())


def role_in(file_name: str) -> str:
    """The word of a file's name that states a part, as ``train`` in ``imagenet-train-0001.tar``; else empty."""
    words = [word for word in re.split(r"[^A-Za-z]+", file_name) if role_of(word)]
    return words[0] if words else ""


def usable(names: Iterable[str], part: str) -> bool:
    """Whether `choose_part` finds a part among `names`, without a reason to refuse."""
    return any(_wanted(tuple(names), role) for role in _order(part)) or part in names


def choose_part(names: Sequence[str], part: str, where: Path | str, how: Callable[[str], str]) -> Choice:
    """The part among `names` that `part` asks for: ``train``, ``test``, or the name of one of them.

    For ``test``, a validation part is taken if there is no test part. Nothing stands in for a training part.

    Args:
        names: the names that the parts have in the data set: ``valid``, ``Train``.
        part: ``train``, ``test`` or an element of `names`.
        where: the data set, for messages.
        how: says how to open the part of a name directly: "give the path pets/test".

    Raises:
        SuiteError: there is no such part, or more than one.
    """
    if part in names and role_of(part) is None:
        return Choice(part)
    found = f"the part {names[0]!r}" if len(names) == 1 else f"the parts {listed(map(repr, names))}"
    for role in _order(part):
        wanted = _wanted(names, role)
        if len(wanted) > 1:
            raise SuiteError(
                f"{where}: both {wanted[0]!r} and {wanted[1]!r} may be its {role} part. To open one of them, "
                f"{how(wanted[0])}."
            )
        if wanted:
            others = [name for name in names if name != wanted[0]]
            beside = f"; not read: {listed(map(repr, others))}" if others else ""
            missing = ", because there is no test part" if part == "test" and role == "validation" else ""
            return Choice(wanted[0], (f"read the part {wanted[0]!r}{missing}{beside}",) if others or missing else ())
    kind = "training part" if part == "train" else f"{part} part"
    raise SuiteError(f"{where}: has no {kind}; found {found}. To use {names[0]!r} all the same, {how(names[0])}.")


def part_folder(root: Path, part: str, is_part: Callable[[Path], bool]) -> tuple[Path, tuple[str, ...]]:
    """The folder of the part of `root` that `part` asks for, and notes on the choice; `root` if it has no parts.

    A folder called ``train``, ``val``, ``test`` and so on is a part if `is_part` finds labelled images in it; a class
    may have one of these names, too. Raises SuiteError as `choose_part` does.
    """
    names = part_names(root, is_part)
    if not names:
        return root, ()
    choice = choose_part(names, part, root, lambda name: f"give the path {root / name}")
    return root / choice.name, choice.notes


def part_names(root: Path, is_part: Callable[[Path], bool]) -> tuple[str, ...]:
    """The names of the folders in `root` that are called after a part and are one, sorted."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    return tuple(path.name for path in inside if role_of(path.name) and path.is_dir() and is_part(path))


def _order(part: str) -> tuple[Role, ...]:
    role = role_of(part)
    return ("test", "validation") if role == "test" else () if role is None else (role,)


def _wanted(names: Iterable[str], role: Role) -> list[str]:
    return [name for name in names if role_of(name) == role]

"""Whether two lists of class names are the same names, and in which order. Knows no data set and no head."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

IN_GIVEN_ORDER = "its classes are taken in the order of the given class names, by name"
"""A note on data whose own names are given in another order."""

_NUMBERED = re.compile(r"(?:(?:class|label)[ _-]?)?(\d{1,9})", re.IGNORECASE)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether names are the classes' numbers in their order (``0``, ``LABEL_0``, ``class 1``), which say nothing."""
    found = [_NUMBERED.fullmatch(name.strip()) for name in names]
    numbers = [int(match[1]) for match in found if match]
    return bool(numbers) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(names)))


def same_order(first: Sequence[str], second: Sequence[str]) -> tuple[int, ...] | None:
    """The position in `second` of each name of `first`; None unless both hold the same names, each once."""
    key = comparable(first, second)
    where = {key(name): position for position, name in enumerate(second)}
    keys = [key(name) for name in first]
    if len(first) != len(second) or len(where) != len(second) or set(keys) != where.keys():
        return None
    return tuple(where[name] for name in keys)


def in_place(first: Sequence[str], second: Sequence[str]) -> int:
    """How many names are the same at the same position; -1 if some name of `first` has another position in `second`."""
    key = comparable(first, second)
    one, other = [key(name) for name in first], [key(name) for name in second]
    same = sum(a == b for a, b in zip(one, other, strict=False))
    return -1 if any(a != b and a in other for a, b in zip(one, other, strict=False)) else same


def require_own_places(own: Sequence[str], given: Sequence[str], where: str) -> None:
    """Raise SuiteError, naming `where`, if the names `given` for classes are for the most part those of other classes.

    `own` are the names that the classes have in the data, as many as there are given ones.
    """
    key = comparable(own, given)
    pairs = [(key(name), key(new)) for name, new in zip(own, given, strict=True)]
    theirs = {new for _, new in pairs}
    moved = [name for name, (old, new) in zip(own, pairs, strict=True) if old != new and old in theirs]
    if len(moved) > sum(old == new for old, new in pairs):
        known = {key(name) for name in own}
        lacking = listed((repr(name) for name in own if key(name) not in theirs), 3) or "none"
        unknown = listed((repr(name) for name in given if key(name) not in known), 3) or "none"
        raise SuiteError(
            f"{where}: {plural(len(moved), 'class')}, such as {moved[0]!r}, would get the name of another class: the "
            f"given class names are in another order than the data's, and are not all the same. Only the data has "
            f"{lacking}; only the list has {unknown}. Give one name for each class, in the data's order: "
            f"{listed(map(repr, own), 3)}."
        )


def comparable(*lists: Sequence[str]) -> Callable[[str], str]:
    """How names are compared: without regard to case, underscores and surrounding blanks, unless two become equal."""
    for names in lists:
        if len({plain(name) for name in names}) < len(set(names)):
            return str
    return plain


def plain(name: str) -> str:
    """A name in lower case, with blanks for underscores, and one blank for several."""
    # macOS writes letters with accents in file names as two characters.
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def joined(name: str) -> str:
    """A name in lower case without blanks, hyphens and underscores: folders of one data set differ in these."""
    return "".join(character for character in plain(name) if character not in " -")


def labels_by_name(classnames: Sequence[str], folders: Sequence[str]) -> dict[str, int]:
    """The label of each folder that has the name of a class, whatever the case, the blanks and the hyphens."""
    label_of = {joined(name): label for label, name in enumerate(classnames)}
    return {folder: label_of[joined(folder)] for folder in folders if joined(folder) in label_of}

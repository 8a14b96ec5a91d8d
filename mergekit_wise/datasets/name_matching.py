"""Whether two lists of class names are the same names, and in which order. Knows no data set and no head."""

import re
import unicodedata
from collections.abc import Callable, Sequence

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

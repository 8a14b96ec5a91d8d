"""Phrases that many messages share: suggestions, shortened lists, numbers with their nouns, names from files."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

from mergekit_wise.errors import UsageError

MAX_LISTED = 8
"""How many items `listed` names unless it is asked for another number."""


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence that suggests at most `most` of the `known` words that look like `word`, or an empty string.

    The sentence begins with a space, so that it can be appended to a message.
    """
    from difflib import get_close_matches  # several milliseconds that only an error message needs

    close = get_close_matches(word, list(dict.fromkeys(known)), most)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def listed(items: Iterable[object], most: int = MAX_LISTED) -> str:
    """The first `most` items and how many are left out: ``a, b, c and 5 more``."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def plural(count: int, noun: str) -> str:
    """A number with its noun in the singular or the plural: ``1 tensor``, ``2,048 classes``, ``3 entries``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        nouns = f"{noun}es"
    elif noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        nouns = f"{noun[:-1]}ies"
    else:
        nouns = f"{noun}s"
    return f"{count:,} {nouns}"


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds: ``0:02:50``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str, option: str) -> int:
    """A positive number of bytes: ``300000``, ``256MB``, ``1.5 GiB``. Raises UsageError that names the option."""
    from decimal import Decimal  # not for commands that are given no size

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not (size := int(Decimal(found[1]) * unit)):
        raise UsageError(f"{option} {text}: expected a size such as 256MB or 2GB.")
    if not found[2] and size < 1000:
        raise UsageError(f"{option} {text}: {size} bytes are too few. Give a unit: {found[1]}MB or {found[1]}GB.")
    return size


def in_bytes(count: int) -> str:
    """A number of bytes with a readable unit."""
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def shown(text: str, width: int = 60) -> str:
    """A text from a file made safe for a message: on one line, without control characters, `width` characters long.

    Control characters are escaped after the text is cut.
    """
    cut = text if len(text) <= width else text[: width - 3] + "..."
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()


_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters except line feed and tab, other line separators, and letters that change the direction of text."""


def visible(text: str) -> str:
    """A text for a terminal, with escapes in place of characters that would control it or hide what it says."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def alike(messages: Iterable[str], most: int = 3) -> list[str]:
    """Messages of the form ``TITLE: TEXT`` that have one text as a single message with the first titles and a count.

    ``one: t``, ``two: t``, ``other`` become ``one, two: t``, ``other``, in the order of the first of each.
    """
    titles: dict[str, dict[str, None]] = {}
    for message in messages:
        title, colon, text = message.partition(": ") if ": " in message else ("", "", message)
        same = titles.setdefault(text, {})
        if colon:
            same[title] = None
    return [f"{listed(some, most)}: {text}" if some else text for text, some in titles.items()]


NUMBER = re.compile(r"(?<![0-9])(?:0|[1-9][0-9]{0,8})(?![0-9])")
"""A number in a name: without leading zeros, so that the name can be read off it, and of a sensible length."""

Numbers = tuple[int, ...]
Names = tuple[str, ...]


def fold(names: Iterable[str], alike: Callable[[str], Hashable] = lambda name: None) -> list[tuple[str, Names]]:
    """Names that differ only in numbers folded into lines, each with its names: ``blocks.{0..11}.attn.weight``.

    Every name can be read off the lines. Only names for which `alike` gives the same value share a line.
    """
    return [("".join(_line(texts, numbers)), members) for texts, numbers, members in products(names, alike)]


def fold_names(names: Iterable[str]) -> list[str]:
    """The lines of `fold`."""
    return [line for line, _ in fold(names)]


def products(
    names: Iterable[str], alike: Callable[[str], Hashable] = lambda name: None
) -> list[tuple[Names, tuple[Numbers, ...], Names]]:
    """Names as (texts, numbers between the texts, names): each stands for all combinations of its numbers."""
    groups: dict[tuple[Names, Hashable], dict[tuple[Numbers, ...], Names]] = {}
    for name in names:
        numbers: tuple[Numbers, ...] = tuple((int(found),) for found in NUMBER.findall(name))
        groups.setdefault((tuple(NUMBER.split(name)), alike(name)), {})[numbers] = (name,)
    found = []
    for (texts, _), items in groups.items():
        for place in reversed(range(len(texts) - 1)):
            items = _merged(items, place)
        found += [(texts, numbers, members) for numbers, members in items.items()]
    return found


def _merged(items: Mapping[tuple[Numbers, ...], Names], place: int) -> dict[tuple[Numbers, ...], Names]:
    """Items that differ only in the number at one place as one item."""
    alike: dict[tuple[Numbers, ...], list[tuple[int, Names]]] = {}
    for numbers, members in items.items():
        alike.setdefault((*numbers[:place], *numbers[place + 1 :]), []).append((numbers[place][0], members))
    return {
        (*others[:place], tuple(sorted(number for number, _ in same)), *others[place:]): tuple(
            name for _, members in same for name in members
        )
        for others, same in alike.items()
    }


def _line(texts: Names, numbers: tuple[Numbers, ...]) -> Iterator[str]:
    for text, here in zip(texts, numbers, strict=False):
        yield text
        yield _ranges(here)
    yield texts[-1]


def _ranges(numbers: Numbers) -> str:
    """Ascending numbers, with runs as in shells: ``7``, ``{0..11}``, ``{0..2,5}``."""
    if len(numbers) == 1:
        return str(numbers[0])
    return "{" + ",".join(str(a) if a == b else f"{a}..{b}" for a, b in runs(numbers)) + "}"


def runs(numbers: Numbers) -> list[tuple[int, int]]:
    """The first and the last number of each run of consecutive numbers; `numbers` are ascending."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found

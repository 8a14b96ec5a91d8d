"""Phrases that many messages share: suggestions, shortened lists, numbers with their nouns, names from files."""

import re
from collections.abc import Iterable

MAX_LISTED = 8
"""How many items `listed` names unless it is asked for another number."""


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence that suggests at most `most` of the `known` words that look like `word`, or an empty string.

    The sentence begins with a space, so that it can be appended to a message.
    """
    from difflib import get_close_matches  # several milliseconds that only an error message needs

    close = get_close_matches(word, list(known), most)
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


NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def fold_names(names: Iterable[str]) -> list[str]:
    """Tensor names with names that differ only in one number folded into one line: ``blocks.{0-11}.attn.weight``.

    Every name can be read off the lines. The first number of a name is the one that is folded.
    """
    groups: dict[tuple[str, str] | str, list[int]] = {}
    for name in names:
        found = NUMBER.search(name)
        if found and str(int(found[0])) == found[0]:
            groups.setdefault((name[: found.start()], name[found.end() :]), []).append(int(found[0]))
        else:
            groups[name] = []
    return [key if isinstance(key, str) else f"{key[0]}{_ranges(numbers)}{key[1]}" for key, numbers in groups.items()]


def _ranges(numbers: list[int]) -> str:
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in runs) + "}"

"""Phrases that many messages share: suggestions, shortened lists, and numbers with their nouns."""

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

"""What JSON of any origin holds, as numbers and short texts. Knows nothing of records."""

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 400
"""Characters of a text that are kept."""

FURTHEST = 1000.0
"""No mixture is farther from the two models than this; an axis of alpha has to end somewhere."""


def as_items(value: object) -> list[tuple[str, Any]]:
    """Names and values of an object; of everything else none."""
    return [(as_text(key), entry) for key, entry in value.items()] if isinstance(value, Mapping) else []


def as_number(value: object) -> float | None:
    """A finite number; None for everything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def as_text(value: object) -> str:
    """A value of a record as one short line that every file can hold: no control characters, no half characters."""
    match value:
        case str():
            line = value
        case bool():
            line = "yes" if value else "no"
        case float():
            line = f"{value:g}"
        case Mapping():
            line = ", ".join(f"{key} {entry}" for key, entry in value.items())
        case list() | tuple():
            line = ", ".join(map(str, value))
        case _:
            line = str(value)
    line = line.encode("utf-8", "replace").decode("utf-8")
    line = "".join(character if character.isprintable() else " " for character in line).strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"

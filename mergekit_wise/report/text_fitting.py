"""Texts of figures that fit: measured in points, broken into lines, and shortened where there is no room.

Knows texts and sizes; draws nothing.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

ELLIPSIS = "…"


def wrapped(text: str, width: float, size: float, most: int = 2) -> str:
    """A text in at most so many lines, none wider than `width` points at a font of `size` points.

    Lines end at spaces, else behind punctuation, else anywhere; what does not fit is replaced by an ellipsis.
    """
    lines: list[str] = []
    rest = text.strip()
    while rest and len(lines) < most:
        if text_width(rest, size) <= width:
            lines.append(rest)
            rest = ""
            break
        last = len(lines) == most - 1
        end = _longest(rest, width, size, ELLIPSIS if last else "")
        if last:
            lines.append(rest[:end].rstrip() + ELLIPSIS)
            break
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return "\n".join(lines)


@lru_cache(4096)
def text_width(text: str, size: float) -> float:
    """The width of a line in points, in matplotlib's own font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    if not text:
        return 0.0
    width, _, _ = TextToPath().get_text_width_height_descent(
        text.replace("$", "S"), FontProperties(size=size), ismath=False
    )
    return float(width)


def not_drawn(texts: Iterable[str]) -> str:
    """The characters of texts that matplotlib's own font lacks; it draws boxes in their place."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(dict.fromkeys(each for text in texts for each in text if ord(each) not in known))


def literal(text: str) -> str:
    """A text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _longest(text: str, width: float, size: float, end: str) -> int:
    """Where to break a text that is too wide for its first line, which `end` follows."""
    fits = 1
    while fits < len(text) and text_width(text[: fits + 1].rstrip() + end, size) <= width:
        fits += 1
    if end or text[fits : fits + 1].isspace():
        return fits
    places = [found.end() for found in re.finditer(r"\s+|[-_/,.:+](?=\w)", text[: fits + 1])]
    spaces = [place for place in places if text[place - 1].isspace()]
    return next((place for place in (*spaces[::-1], *places[::-1]) if place > fits / 2), fits)

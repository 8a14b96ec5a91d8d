"""The JSON object among what a program prints: logs and other values around it are passed over, parts never taken."""

import re
from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from typing import Any

from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.evaluation.task_results import FIELDS
from mergekit_wise.wording import listed, shown

ATTEMPTS = 100
"""Values that are begun and not ended, of which each is read to the end of the output."""

_BEGIN = re.compile(rb"""(?:\A(?:\xef\xbb\xbf)?|[\r\n])(?=\{\s*["'}]|\[\s*["'{\[\]\d-])""")
"""Where a line begins, also after a byte order mark or a progress bar, with what an object or a list begins with."""

_TOKEN = re.compile(rb'"[^"\\\r\n]*(?:\\.[^"\\\r\n]*)*"|[][{}]')
"""A text, whose brackets do not count, or a bracket."""

_REST = re.compile(rb"[^\r\n]*")

_RESULT = re.compile(rb"""["'](?:score|items|correct)["']\s*:""")
_GLANCE = 1000
"""Bytes in which a value that is no JSON shows that it was meant as a result."""


def last_object(text: bytes) -> dict[str, Any] | None:
    """The last JSON object of an output that begins a line and ends one; None if there is none.

    What lies within another value is a part of it, however it is broken into lines. Raises ValueError, with the reason,
    if the object cannot hold a result, if what was meant as a later result is no JSON, or if an earlier object has
    results of other data sets, which would be lost.
    """
    found: dict[str, Any] | None = None
    names: dict[str, None] = {}
    broken = b""
    for piece, value in _values(text):
        if isinstance(value, dict):
            found, broken = value, b""
            names |= dict.fromkeys(_data_sets(value))
        elif value is None and _RESULT.search(piece, 0, _GLANCE):
            broken = piece
    if broken:
        begin = shown(broken[:60].decode("utf-8", "replace"), 60)
        raise ValueError(f"what was meant as the result is no JSON: {begin}; json.dumps makes JSON of a dictionary")
    if found is not None and (lost := [name for name in names if name not in found]):
        raise ValueError(
            f"results of {listed(map(shown, lost), 5)} are in an object before the last, which alone is read; print "
            "one object with all data sets"
        )
    return found


def _values(text: bytes) -> Iterator[tuple[bytes, Any]]:
    """What stands on lines of its own and looks like JSON, and its value; None if it is no JSON."""
    position, unended = 0, 0
    while unended < ATTEMPTS and (begin := _BEGIN.search(text, position)):
        start = begin.end()
        end = _end(text, start)
        if end is None:
            unended += 1
            end = _line_end(text, start)
            yield text[start:end], None
        elif not text[end : _line_end(text, end)].strip():
            yield text[start:end], _parsed(text[start:end])
        position = end


def _end(text: bytes, start: int) -> int | None:
    """Where the bracket at `start` is closed; None if it is not."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None


def _line_end(text: bytes, position: int) -> int:
    rest = _REST.match(text, position)
    assert rest is not None
    return rest.end()


def _parsed(text: bytes) -> Any:
    try:
        return parse_json(text)
    except (JSONDecodeError, UnicodeDecodeError):
        return None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _data_sets(value: Mapping[str, Any]) -> Iterator[str]:
    """The names of data sets in an object that holds a result of each."""
    if all(isinstance(each, dict) and each and each.keys() <= set(FIELDS) for each in value.values()):
        yield from value

"""JSON from a file, parsed in memory that is bounded by the size of its text.

A list of three bytes takes sixty in memory, and an integer can have any number of digits. Headers, indices and
configurations need few lists and short numbers: a text with more is refused before it is parsed.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

SMALL = 1 << 20
"""Bytes of a text whose memory does not matter, whatever is in it."""

PER_LIST, PER_OBJECT = 12, 40
"""Bytes of text for each list and each object on average, at least: those of a tensor in a header take more."""

MAX_DIGITS = 20

_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def parse_json(text: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text in UTF-8; `pairs` makes an object of its entries.

    Raises ValueError, or RecursionError if lists are nested too deeply.
    """
    if len(text) > SMALL and _is_excessive(text) and _is_excessive(_TEXT.sub(b"", text), len(text)):
        raise ValueError("it holds more lists and objects than its size allows")
    return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_int=_integer, parse_constant=_no_number)


def _is_excessive(text: bytes, size: int | None = None) -> bool:
    size = len(text) if size is None else size
    return text.count(b"[") * PER_LIST > size or text.count(b"{") * PER_OBJECT > size


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")

"""What a file says about its tensors, held against what can be true. Knows no file format.

A few bytes can claim anything; what passes here can be computed with, allocated for, written again and shown.
"""

import math
import re
from collections.abc import Sequence

MAX_NAME = 1000
"""Characters of a tensor's name."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MAX_DIMENSIONS = 64
"""NumPy's limit."""

MAX_BYTES = 2**63 - 1

REPEATS = 16
SPARE = 1 << 26
"""Expanded and shared tensors may take this many times the file's size, and these bytes besides."""


def check_name(name: str) -> None:
    """Raise ValueError if `name` is absurdly long, would steer a terminal, or is no text that a file could hold."""
    if len(name) > MAX_NAME:
        raise ValueError(f"the name {shown(name)!r} is {len(name):,} characters long, where {MAX_NAME:,} are allowed")
    if CONTROL.search(name):
        raise ValueError(f"the name '{shown(name)}' holds control characters")
    check_text(name)


def check_text(text: str) -> None:
    """Raise ValueError if `text` has halves of surrogate pairs, which JSON and pickle can write but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the text '{shown(text)}' is not Unicode") from None


def check_shape(name: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise ValueError if no machine could hold a tensor of this shape, its empty dimensions left out of account."""
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {shown(name)!r} has {len(shape):,} dimensions, where {MAX_DIMENSIONS} are allowed")
    if math.prod(size or 1 for size in shape) * itemsize > MAX_BYTES:
        raise ValueError(f"tensor {shown(name)!r} of shape {list(shape)} needs more bytes than can be counted")


def check_total(total: int, file_size: int) -> None:
    """Raise ValueError if `total` bytes of tensors are out of all proportion to the file whose elements they view."""
    if total > REPEATS * file_size + SPARE:
        raise ValueError(
            f"its tensors would take {total:,} bytes, out of a file of {file_size:,}: "
            "it repeats the same elements (expanded tensors) too often to be believed"
        )


def shown(text: str, width: int = 60) -> str:
    """A text out of a file as a message may show it: on one line, without control characters, not too long."""
    cut = text if len(text) <= width else text[: width - 3] + "..."
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()

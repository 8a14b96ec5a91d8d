"""Arrays in .npy files, whose headers are distrusted: nothing is unpickled, and no array is larger than its file.

Knows nothing of images and labels.
"""

import math
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

_HEADER_BYTES = 1 << 16

# What NumPy raises on damaged headers, which it evaluates as Python literals, tokenized first if they are Python 2's.
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError)


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a header declares: shape, memory order and dtype of the array, whose bytes begin at `start`."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[np.generic]
    start: int


def read_npy_header(path: Path) -> NpyHeader:
    """Read the header of a .npy file. Raises SuiteError if the file cannot be read or is of another kind."""
    refuse_web_page(path)
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, by_columns, dtype = read(file, max_header_size=_HEADER_BYTES)
            return NpyHeader(shape, by_columns, dtype, file.tell())
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SuiteError(f"{path}: expected an array in a .npy file: {reason}. Download it again.") from error


def map_npy(path: Path) -> NDArray[np.generic]:
    """Map the array of a .npy file into memory.

    Raises SuiteError as `read_npy_header` does, if the array holds Python objects, which would be unpickled, or if it
    is not as large as its file.
    """
    header = read_npy_header(path)
    size = path.stat().st_size - header.start
    declared = f"{str(header.dtype)[:60]} {str(list(header.shape))[:60]}"
    if header.dtype.hasobject:
        raise SuiteError(f"{path}: expected numbers in a .npy file, found Python objects ({declared}).")
    sound = all(type(length) is int and length >= 0 for length in header.shape)
    if not sound or math.prod(header.shape) * header.dtype.itemsize != size:
        raise SuiteError(
            f"{path}: its header declares an array {declared}, which does not match the file's {size:,} bytes of data. "
            "Download it again."
        )
    if not size:
        return np.empty(header.shape, header.dtype)
    array: NDArray[np.generic] = np.memmap(
        path, header.dtype, "r", header.start, header.shape, "F" if header.by_columns else "C"
    )
    return array

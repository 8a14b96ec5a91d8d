"""A file that is mapped into memory. Knows nothing of what its bytes mean."""

import mmap as memory
import os
import re
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.errors import CheckpointError

POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14 and later; Python has no name for it."""

HUGE_PAGE = 2 << 20


class MappedFile:
    """A file opened for reading; its bytes are loaded when they are accessed."""

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        """Map `path`. Without `mmap`, elements are read with ordinary I/O nevertheless.

        Raises CheckpointError if it is missing, a folder, empty or unreadable.
        """
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
                raise CheckpointError(f"{path}: a device or a pipe, but a checkpoint file was expected.")
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise CheckpointError(_missing(path)) from None
        except IsADirectoryError:
            raise CheckpointError(f"{path}: a folder, but a checkpoint file was expected.") from None
        except (OSError, ValueError) as error:  # ValueError: a path that no file can have
            raise CheckpointError(f"{str(path)!r}: cannot be opened: {error}.") from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size == 0:
            self._file.close()
            raise CheckpointError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
        self._lock = threading.Lock()
        self._plain = not mmap
        try:
            self._map = memory.mmap(self._file.fileno(), 0, access=memory.ACCESS_READ)
        except (OSError, ValueError) as error:
            self._file.close()
            raise CheckpointError(f"{path}: cannot be mapped into memory: {error}.") from error

    def view(self) -> memoryview:
        """All bytes of the file, loaded when they are accessed."""
        return memoryview(self._map)

    def bytes_at(self, start: int, stop: int) -> bytes:
        """A copy of the bytes from `start` up to `stop` or the file's end; for headers, not for tensors.

        They are read with ordinary I/O, because Linux maps a whole huge page for a single byte, and a zip archive has a
        header at each tensor.
        """
        stop = min(stop, self.size)
        return bytes(self._read(start, stop - start)) if start < stop else b""

    def elements(self, storage: str, offset: int, count: int) -> NDArray[np.generic]:
        """`count` elements from byte `offset` on: a view of the map, or a copy without `mmap`."""
        if count == 0:
            return np.empty(0, storage)
        if self._plain:
            return np.frombuffer(self._read(offset, count * np.dtype(storage).itemsize), storage)
        return np.frombuffer(self._map, dtype=storage, count=count, offset=offset)

    def _read(self, offset: int, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        try:
            with self._lock:
                self._file.seek(offset)
                while rest and (got := self._file.readinto(rest)):  # Linux reads at most 2 GiB at once
                    rest = rest[got:]
        except OSError as error:
            raise CheckpointError(f"{self.path}: reading failed at byte {offset:,}: {error.strerror}.") from error
        if rest:
            raise CheckpointError(f"{self.path}: became shorter while it was being read.")
        return data

    def expect(self, start: int, stop: int) -> None:
        """Map the pages between two bytes at once, which is much cheaper than a page fault for every few of them."""
        if sys.platform == "linux" and not self._plain:
            first = start // memory.PAGESIZE * memory.PAGESIZE
            with suppress(OSError, ValueError):  # older systems lack it and work without
                self._map.madvise(POPULATE_READ, first, min(stop, self.size) - first)

    def forget(self, start: int, stop: int) -> None:
        """Unmap the pages between two bytes, and those mapped with them; accessing them again maps them again."""
        if sys.platform == "win32":
            return
        # Linux maps a whole huge page, if the cache holds one, when a single byte is accessed.
        first = start // HUGE_PAGE * HUGE_PAGE
        last = min(-(-stop // HUGE_PAGE) * HUGE_PAGE, self.size)
        if last > first:
            self._map.madvise(memory.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Close the file. The map itself lives as long as a view of it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
"""The folder of a repository in the cache of the Hugging Face hub."""


def _missing(path: Path) -> str:
    """Why a path that does not exist is none, and how to get the file."""
    if not path.is_symlink():
        return f"{path}: no such file. Check the path."
    advice = "Download the file again."
    if hub := _HUB_CACHE.search(str(path)):
        advice = f"Download it again: hf download {hub[1]}/{hub[2]}"
    return f"{path}: a link to {path.readlink()}, which does not exist: the download was interrupted. {advice}"

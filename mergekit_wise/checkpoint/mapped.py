"""A file that is mapped into memory, or read with ordinary I/O. Knows nothing of what its bytes mean.

A file is mapped only where the compiled module watches it, so that one that becomes shorter is an error and no crash.
"""

import mmap as memory
import os
import re
import stat
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.errors import CheckpointError


class _Guard(Protocol):
    """The compiled module that watches maps and calls the system: see _guard.c."""

    def guard(self, mapped: memory.mmap, /) -> int: ...
    def faulted(self, slot: int, /) -> bool: ...
    def release(self, slot: int, /) -> None: ...
    def advise(self, mapped: memory.mmap, advice: int, start: int, length: int, /) -> None: ...
    def reserve(self, file: int, size: int, /) -> None: ...


watching: _Guard | None
try:
    from mergekit_wise.checkpoint import _guard as watching  # type: ignore[attr-defined, no-redef, unused-ignore]
except ImportError:  # installed without a C compiler, or on Windows
    watching = None

POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14 and later; Python has no name for it."""

SMALL = 1 << 12
"""Elements below which a question to the system costs more than reading."""

HUGE_PAGE = 2 << 20

SHORTER = "became shorter while it was being read. Run the command again when nothing else writes the file."


def guarded_map(file: int) -> "tuple[memory.mmap, int] | None":
    """A map of an open file and the slot that watches it; None if it cannot be watched. Raises OSError, ValueError."""
    if watching is None:
        return None
    mapped = memory.mmap(file, 0, access=memory.ACCESS_READ)
    slot = watching.guard(mapped)
    if slot < 0:
        return None
    weakref.finalize(mapped, watching.release, slot)
    return mapped, slot


class MappedFile:
    """A file opened for reading; its bytes are loaded when they are accessed.

    Attributes:
        path: the file.
        size: in bytes, when it was opened.
        refusal: why the file could not be mapped; None if it was, or if this was not asked for.
    """

    def __init__(
        self,
        path: Path,
        *,
        mmap: bool = True,
        map_file: "Callable[[int], tuple[memory.mmap, int] | None]" = guarded_map,
    ) -> None:
        """Open `path`. Without `mmap`, and on file systems that map no files, bytes are read with ordinary I/O.

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
        self.refusal: str | None = None
        self._map: memory.mmap | None = None
        if mmap:
            try:
                self._map, self._slot = map_file(self._file.fileno()) or (None, -1)
            except (OSError, ValueError) as error:
                self.refusal = (error.strerror if isinstance(error, OSError) else None) or str(error)

    def view(self) -> memoryview:
        """All bytes of the file: loaded when they are accessed, or, of a file that is not mapped, read at once."""
        if self._map is None:
            return memoryview(self._read(0, self.size)).toreadonly()
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
        if self._map is None:
            return np.frombuffer(self._read(offset, count * np.dtype(storage).itemsize), storage)
        if count >= SMALL:
            self.require_whole()
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
            raise CheckpointError(f"{self.path}: {SHORTER}")
        return data

    def require_whole(self) -> None:
        """Raise CheckpointError if the file became shorter, or if zeros were read in place of bytes that are gone.

        `elements` asks by itself only for many elements, so that whoever reads few of them must ask after reading.
        """
        if self._map is None:
            return
        spoiled = watching is not None and watching.faulted(self._slot)
        if spoiled or (not self._file.closed and os.fstat(self._file.fileno()).st_size < self.size):
            raise CheckpointError(f"{self.path}: {SHORTER}")

    def expect(self, start: int, stop: int) -> None:
        """Map the pages between two bytes at once, which is much cheaper than a page fault for every few of them."""
        if sys.platform == "linux" and self._map is not None:
            first = start // memory.PAGESIZE * memory.PAGESIZE
            with suppress(OSError):  # older systems lack it and work without
                self._advise(POPULATE_READ, first, min(stop, self.size) - first)

    def forget(self, start: int, stop: int) -> None:
        """Unmap the pages between two bytes, and those mapped with them; accessing them again maps them again.

        Raises CheckpointError if what was read from them may be wrong, because the file became shorter.
        """
        if sys.platform == "win32" or self._map is None:
            return
        self.require_whole()
        # Linux maps a whole huge page, if the cache holds one, when a single byte is accessed.
        first = start // HUGE_PAGE * HUGE_PAGE
        last = min(-(-stop // HUGE_PAGE) * HUGE_PAGE, self.size)
        if last > first:
            self._advise(memory.MADV_DONTNEED, first, last - first)

    def _advise(self, advice: int, start: int, length: int) -> None:
        """Python's own `madvise` would let all threads wait while one reads from the disk."""
        if watching is not None and self._map is not None:  # without the first there is no map
            watching.advise(self._map, advice, start, length)

    def close(self) -> None:
        """Close the file. The map itself lives as long as a view of it.

        Raises CheckpointError if bytes that were read since were gone.
        """
        self._file.close()
        self.require_whole()

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

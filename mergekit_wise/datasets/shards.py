"""Many files read at any place, with few descriptors. Knows nothing of what is in them."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mergekit_wise.errors import SuiteError

_KEPT = 64
"""Files that a process keeps open; more of them are opened for each read."""


class Shards:
    """Files that are read at any place. Safe between threads, and after a fork: no position is kept, nothing evicted.

    A pickled copy opens its own descriptors.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        """`paths` may be missing until they are read."""
        self.paths = paths
        self._descriptors: dict[int, int] = {}
        weakref.finalize(self, _close, self._descriptors)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Bytes of file number `shard`, fewer at its end; SuiteError names it if it cannot be read."""
        with self._opened(shard) as descriptor:
            return os.pread(descriptor, size, offset)

    def length(self, shard: int) -> int:
        """The bytes of file number `shard`."""
        with self._opened(shard) as descriptor:
            return os.fstat(descriptor).st_size

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        try:
            if shard in self._descriptors:
                yield self._descriptors[shard]
                return
            descriptor = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield descriptor
            finally:
                if len(self._descriptors) >= _KEPT or self._descriptors.setdefault(shard, descriptor) != descriptor:
                    os.close(descriptor)
        except OSError as error:
            raise SuiteError(f"{self.paths[shard]}: cannot be read: {error.strerror}.") from error

    def __reduce__(self) -> Any:
        return Shards, (self.paths,)


def _close(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])

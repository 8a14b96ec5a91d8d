"""A file whose bytes are mapped, not read. Knows nothing of what they mean."""

import mmap
import os
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.errors import CheckpointError


class MappedFile:
    """A file opened for reading; its bytes come from the page cache when they are touched."""

    def __init__(self, path: Path) -> None:
        """Map `path`. Raises CheckpointError if it is missing, a folder, empty or unreadable."""
        self.path = path
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file. Check the path.") from None
        except IsADirectoryError:
            raise CheckpointError(f"{path}: a folder, where a checkpoint file was expected.") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}.") from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.size == 0:
            self._file.close()
            raise CheckpointError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
        try:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            self._file.close()
            raise CheckpointError(f"{path}: cannot be mapped into memory: {error}.") from error

    def view(self) -> memoryview:
        """All bytes of the file, unread until they are touched."""
        return memoryview(self._map)

    def bytes_at(self, start: int, stop: int) -> bytes:
        """A copy of the bytes from `start` up to `stop`; for headers, not for tensors."""
        return self._map[start:stop]

    def elements(self, carrier: str, offset: int, count: int) -> NDArray[np.generic]:
        """A read-only view of `count` elements from byte `offset` on; nothing is copied."""
        if count == 0:
            return np.empty(0, carrier)
        return np.frombuffer(self._map, dtype=carrier, count=count, offset=offset)

    def close(self) -> None:
        """Close the file. The map itself lives as long as a view of it does."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

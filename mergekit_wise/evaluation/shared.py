"""Memory that processes share, in places for one batch each. Knows no image and no process.

Not multiprocessing's shared memory: that lies in /dev/shm, of which a container has 64 MB, and which kills whoever
touches more.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SharedArray:
    """Where the memory is found, by any process of this machine, and its shape: [places, B, 3, H, W], uint8."""

    path: str
    shape: tuple[int, ...]

    def open(self) -> NDArray[np.uint8]:
        """The memory itself: what one process writes, all others see."""
        return np.memmap(self.path, np.uint8, "r+", shape=self.shape)


@contextmanager
def shared_array(shape: tuple[int, ...]) -> Iterator[SharedArray]:
    """Memory of zeros; its pages are taken when they are first written, and given back when the block ends."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("wise")
        path = f"/proc/{os.getpid()}/fd/{file}"
    else:
        file, path = tempfile.mkstemp(prefix="wise-")
    try:
        os.ftruncate(file, prod(shape))
        yield SharedArray(path, shape)
    finally:
        os.close(file)
        if not path.startswith("/proc/"):
            Path(path).unlink(missing_ok=True)

"""Where the arithmetic runs: on the CPU with NumPy, elsewhere with torch. The bytes are the same."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.merging.arithmetic import mix

Mix = Callable[
    [NDArray[np.generic], NDArray[np.generic], tuple[DType, DType], DType, float],
    NDArray[np.generic],
]


@dataclass(frozen=True, slots=True)
class Engine:
    """How to mix, how many threads keep it busy, and how many elements a thread takes and mixes at once.

    A thread takes a `chunk` of a tensor and mixes it block by block.
    """

    mix: Mix
    threads: int
    block: int
    chunk: int = 1 << 22


def open_engine(device: str) -> Engine:
    """The engine of a device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``. Raises UsageError if there is no such device."""
    if device == "cpu":
        # Blocks that stay in a core's second-level cache.
        return Engine(mix, min(os.cpu_count() or 1, 8), 1 << 17)
    from mergekit_wise.merging.torch_arithmetic import open_torch

    return Engine(open_torch(device), 1, 1 << 22)

"""Where the arithmetic runs: on the CPU with NumPy, elsewhere with torch. The bytes are the same."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType

Mix = Callable[
    [NDArray[np.generic], NDArray[np.generic], tuple[DType, DType], DType, float],
    NDArray[np.generic],
]


BYTES_AN_ELEMENT = 48
"""An element of a block in flight: both inputs and the output, decoded at most to float64, with temporaries."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How to mix, how many threads keep it busy, and how many elements a thread takes and mixes at once.

    A thread takes a `chunk` of a tensor and mixes it block by block. `mix` is None on the CPU, where a block is mixed
    where it was decoded.
    """

    mix: Mix | None
    threads: int
    block: int
    chunk: int = 1 << 22


def open_engine(device: str, memory: int = 256 << 20) -> Engine:
    """The engine of a device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; `memory` is in bytes, for blocks in flight.

    Raises UsageError if there is no such device.
    """
    if device == "cpu":
        # Blocks that stay in a core's second-level cache.
        threads = min(os.cpu_count() or 1, 8)
        return Engine(None, threads, max(1, min(1 << 18, memory // (threads * BYTES_AN_ELEMENT))))
    from mergekit_wise.merging.torch_arithmetic import open_torch

    return Engine(open_torch(device), 1, max(1, min(1 << 22, memory // BYTES_AN_ELEMENT)))

"""Where the arithmetic runs: on the CPU compiled or with NumPy, elsewhere with torch. The bytes are the same."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.merging.arithmetic import Scratch, combine, computing_type, decode, distance, encode, squares
from mergekit_wise.merging.native_backend import mix_natively

Sums = tuple[float, float]
"""Of (b - a)^2 and of a^2; not finite if an input is not."""

Mix = Callable[
    [NDArray[np.generic], NDArray[np.generic], tuple[DType, DType], DType, float, Scratch],
    tuple[NDArray[np.generic], Sums],
]
"""(1 - alpha) * a + alpha * b of two carriers and their dtypes, as the storage of an output dtype, and `Sums`.

The result may lie in the scratch, or in a buffer of the thread: it is good until the thread mixes again.
"""

BYTES_AN_ELEMENT = 48
"""An element of a block in flight: both inputs and the output, decoded at most to float64, with temporaries."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How to mix, how many threads keep it busy, and how many elements a thread takes and mixes at once.

    A thread takes a `chunk` of a tensor and mixes it block by block.
    """

    mix: Mix
    threads: int
    block: int
    chunk: int = 1 << 22


def open_backend(device: str, memory: int = 256 << 20) -> Engine:
    """The engine of a device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; `memory` is in bytes, for blocks in flight.

    Raises UsageError if there is no such device.
    """
    if device == "cpu":
        # Blocks that stay in a core's second-level cache.
        threads = min(os.cpu_count() or 1, 8)
        return Engine(mix_on_cpu, threads, max(1, min(1 << 18, memory // (threads * BYTES_AN_ELEMENT))))
    from mergekit_wise.merging.torch_backend import open_torch

    threads = 4  # one block on its way there, one at work, one on its way back, one being written
    return Engine(open_torch(device), threads, max(1, min(1 << 21, memory // (threads * BYTES_AN_ELEMENT))))


def mix_on_cpu(
    a: NDArray[np.generic],
    b: NDArray[np.generic],
    dtypes: tuple[DType, DType],
    out: DType,
    alpha: float,
    scratch: Scratch,
) -> tuple[NDArray[np.generic], Sums]:
    """A `Mix` without torch."""
    room = scratch.take(2, out.storage, len(a))
    sums = mix_natively(a, b, room, (*dtypes, out), alpha)
    if sums is not None:
        return room, sums
    kind = computing_type(dtypes)
    x, y = decode(a, dtypes[0], kind, scratch, 0), decode(b, dtypes[1], kind, scratch, 1)
    sums = (distance(x, y, scratch), squares(x))
    return encode(combine(x, y, alpha, scratch), out, scratch), sums

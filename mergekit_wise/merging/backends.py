"""The choice of where a merge is computed: on the CPU, compiled or with NumPy, or on a torch device.

All backends give the same bytes. The arithmetic itself is in arithmetic.py.
"""

from dataclasses import dataclass
from typing import Protocol

from mergekit_wise.checkpoint import DType
from mergekit_wise.cores import usable_cores
from mergekit_wise.merging.arithmetic import Mix, Scratch, StorageArray, Sums, mix

BYTES_AN_ELEMENT = 48
"""Memory for an element of a block in flight: two inputs and the output, at most as float64, and temporaries."""

COMPILED_DTYPES = frozenset({"F32", "BF16", "F16"})


@dataclass(frozen=True, slots=True)
class Backend:
    """A form of the arithmetic, and how to use it well.

    Attributes:
        mix: the function that mixes a block.
        threads: how many threads keep it busy.
        block: elements that a thread mixes at once.
        chunk: elements of a tensor that a thread takes over at once, and mixes block by block.
    """

    mix: Mix
    threads: int
    block: int
    chunk: int = 1 << 22


def open_backend(device: str, memory: int = 256 << 20) -> Backend:
    """The backend for a device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``. `memory` limits the bytes of blocks in flight.

    Raises UsageError if there is no such device.
    """
    if device == "cpu":
        threads = min(usable_cores(), 8)
        largest = 1 << 18  # blocks that stay in the second-level cache of a core
        return Backend(mix_on_cpu, threads, max(1, min(largest, memory // (threads * BYTES_AN_ELEMENT))))
    from mergekit_wise.merging.torch_backend import open_torch

    threads = 4  # one block on its way to the device, one computed, one on its way back, one being written
    return Backend(open_torch(device), threads, max(1, min(1 << 21, memory // (threads * BYTES_AN_ELEMENT))))


class _Compiled(Protocol):
    def mix(
        self, a: StorageArray, b: StorageArray, out: StorageArray, kinds: tuple[str, str, str], alpha: float
    ) -> Sums: ...
    def same(self, a: StorageArray, b: StorageArray) -> bool: ...


compiled: _Compiled | None
try:
    from mergekit_wise.merging import _native as compiled  # type: ignore[attr-defined, no-redef, unused-ignore]
except ImportError:  # installed without a C compiler
    compiled = None


def mix_on_cpu(
    a: StorageArray, b: StorageArray, dtypes: tuple[DType, DType], out: DType, alpha: float, scratch: Scratch
) -> tuple[StorageArray, Sums]:
    """A `Mix` by the compiled module where it exists and knows the dtypes, else by NumPy."""
    kinds = (dtypes[0].name, dtypes[1].name, out.name)
    if compiled is None or not COMPILED_DTYPES.issuperset(kinds):
        return mix(a, b, dtypes, out, alpha, scratch)
    result = scratch.take(2, out.storage, len(a))
    return result, compiled.mix(a, b, result, kinds, alpha)


def same_bytes(a: StorageArray, b: StorageArray) -> bool:
    """Whether two arrays hold the same bytes; read up to the first that differ where the compiled module exists."""
    return a.tobytes() == b.tobytes() if compiled is None else compiled.same(a, b)

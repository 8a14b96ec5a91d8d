"""The arithmetic of ``arithmetic.py`` on a torch device, rounding for rounding. Only this module here needs torch.

Each thread has a lane of its own: page-locked buffers and, on CUDA, a stream. While one thread's block is computed,
another's is on its way to the device and a third's on its way back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.backends import Mix, Sums, mix_on_cpu

NAMES = frozenset({"F16", "BF16", "F32", "F64", "C64"})
"""Dtypes that torch rounds to as the tool does; versions of torch differ in what too large a float8 becomes."""


class _Lane(threading.local):
    """What a thread moves its blocks with."""

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self.stream = torch.cuda.Stream(place) if place.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.rooms: dict[int, torch.Tensor] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream):  # None: nothing happens
            yield

    def room(self, number: int, size: int) -> torch.Tensor:
        """Buffer `number`, at least `size` bytes of memory that the device may read and write by itself."""
        if number not in self.rooms or len(self.rooms[number]) < size:
            self.rooms[number] = torch.empty(size, dtype=torch.uint8, pin_memory=self.stream is not None)
        return self.rooms[number][:size]

    def send(self, number: int, storage: NDArray[np.generic], dtype: DType) -> torch.Tensor:
        room = self.room(number, storage.nbytes)
        room.numpy()[:] = np.ascontiguousarray(storage).view(np.uint8)
        return room.to(self.place, non_blocking=True).view(torch_dtype(dtype))

    def fetch(self, number: int, tensor: torch.Tensor, dtype: DType) -> NDArray[np.generic]:
        raw = tensor.view(torch.uint8)
        room = self.room(number, len(raw)).copy_(raw, non_blocking=True)
        if self.stream is not None:  # pragma: no cover: needs a GPU
            self.stream.synchronize()
        return room.numpy().view(dtype.storage)


def open_torch(device: str) -> Mix:
    """A `Mix` on a torch device. Raises UsageError if there is no such device."""
    lane = _Lane(open_device(device))

    def mix(
        a: NDArray[np.generic],
        b: NDArray[np.generic],
        dtypes: tuple[DType, DType],
        out: DType,
        alpha: float,
        scratch: Scratch,
    ) -> tuple[NDArray[np.generic], Sums]:
        if not NAMES.issuperset(dtype.name for dtype in (*dtypes, out)):
            return mix_on_cpu(a, b, dtypes, out, alpha, scratch)
        kind = _computing_type(torch_dtype(dtypes[0]), torch_dtype(dtypes[1]))
        with lane.open():
            x, y = lane.send(0, a, dtypes[0]).to(kind), lane.send(1, b, dtypes[1]).to(kind)
            sums = torch.stack([(y - x).abs().square().sum(), x.abs().square().sum()])
            data = lane.fetch(2, mixture(x, y, torch_dtype(out), alpha), out)
            moved, norm = sums.tolist()
        return data, (moved, norm)

    return mix


def open_device(name: str) -> torch.device:
    """The torch device of this name. Raises UsageError if this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:120]
        raise UsageError(f"--device {name}: torch cannot use it ({reason}). Use --device cpu.") from error
    return device


def mixture(x: torch.Tensor, y: torch.Tensor, out: torch.dtype, alpha: float) -> torch.Tensor:
    """(1 - alpha) * x + alpha * y, in float32 or wider, rounded once to `out`, which is among `NAMES`."""
    kind = _computing_type(x.dtype, y.dtype)
    # Separate operations: an addcmul or lerp would fuse the product with the sum and round once less.
    return torch.add(torch.mul(x.to(kind), 1 - alpha), torch.mul(y.to(kind), alpha)).to(out)


def _computing_type(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    return torch.promote_types(torch.promote_types(a, b), torch.float32)


def torch_dtype(dtype: DType) -> torch.dtype:
    """What torch calls it."""
    found = getattr(torch, dtype.torch)
    assert isinstance(found, torch.dtype)
    return found


def devices() -> tuple[tuple[str, str], ...]:
    """The names that ``--device`` accepts on this machine, each with a description."""
    found = [("cpu", f"{torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return tuple(found)

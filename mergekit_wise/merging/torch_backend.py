"""The arithmetic of ``arithmetic.py`` on a torch device, with the same roundings; and tensors of checkpoints in torch.

Each thread has its own page-locked buffers and, on CUDA, its own stream. While one thread's block is computed,
another's is on its way to the device and a third's on its way back. This module alone imports torch here.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.checkpoint import BY_TORCH, DType, TensorInfo
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import arithmetic
from mergekit_wise.merging.arithmetic import Mix, Scratch, StorageArray, Sums

EXACT_DTYPES = frozenset({"F16", "BF16", "F32", "F64", "C64"})
"""Dtypes that torch rounds to as this tool does. Versions of torch differ in how float8 overflows."""


def open_torch(device: str) -> Mix:
    """A `Mix` on a torch device. Raises UsageError if there is no such device."""
    lane = _Lane(open_device(device))

    def mix(
        a: StorageArray, b: StorageArray, dtypes: tuple[DType, DType], out: DType, alpha: float, scratch: Scratch
    ) -> tuple[StorageArray, Sums]:
        if not EXACT_DTYPES.issuperset(dtype.name for dtype in (*dtypes, out)):
            return arithmetic.mix(a, b, dtypes, out, alpha, scratch)
        real = _computing_type(torch_dtype(dtypes[0]), torch_dtype(dtypes[1]))
        with lane.open():
            x, y = lane.send(0, a, dtypes[0]).to(real), lane.send(1, b, dtypes[1]).to(real)
            sums = torch.stack([(y - x).abs().square().sum(), x.abs().square().sum()])
            data = lane.fetch(2, mixture(x, y, torch_dtype(out), alpha), out)
            distance, norm = sums.tolist()
        return data, (distance, norm)

    return mix


def mixture(x: torch.Tensor, y: torch.Tensor, out: torch.dtype, alpha: float) -> torch.Tensor:
    """(1 - alpha) * x + alpha * y, in float32 or wider, rounded once to `out`, which is one of `EXACT_DTYPES`."""
    real = _computing_type(x.dtype, y.dtype)
    # Separate operations: an addcmul or lerp would fuse the product with the sum and round once less.
    return torch.add(torch.mul(x.to(real), 1 - alpha), torch.mul(y.to(real), alpha)).to(out)


def _computing_type(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    return torch.promote_types(torch.promote_types(a, b), torch.float32)


def open_device(name: str) -> torch.device:
    """The torch device of this name. Raises UsageError if this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:120]
        raise UsageError(f"--device {name}: torch cannot use it ({reason}). Use --device cpu.") from error
    return device


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device, without waiting where that is safe: a GPU of CUDA copies from page-locked memory by itself.

    Elsewhere the copy is complete on return, so that the memory of `values` can be used again.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


class Sender:
    """Sends values to a device, on CUDA in a stream of its own, so that it computes in the meantime."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The values on the device; what is computed with them there waits until they have arrived."""
        if self.stream is None:
            return send(values, self.device)
        with torch.cuda.stream(self.stream):  # pragma: no cover: needs a GPU
            sent = send(values, self.device)
        computing = torch.cuda.current_stream(self.device)  # pragma: no cover: needs a GPU
        computing.wait_stream(self.stream)  # pragma: no cover: needs a GPU
        sent.record_stream(computing)  # pragma: no cover: needs a GPU
        return sent  # pragma: no cover: needs a GPU


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of a checkpoint's dtype."""
    found = getattr(torch, dtype.torch)
    assert isinstance(found, torch.dtype)
    return found


def as_tensor(info: TensorInfo, storage: StorageArray) -> torch.Tensor:
    """A tensor on the CPU from elements in the storage dtype, in the shape of `info`."""
    # Copied: torch does not take read-only memory, such as that of a mapped file.
    raw = torch.from_numpy(np.array(storage).reshape(-1).view(np.uint8))
    return raw.view(torch_dtype(info.dtype)).view(info.shape)


def as_stored(name: str, tensor: torch.Tensor) -> tuple[TensorInfo, StorageArray]:
    """The inverse of `as_tensor`: facts and elements as `write_safetensors` takes them; a view where possible."""
    dtype = BY_TORCH[str(tensor.dtype).removeprefix("torch.")]
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    storage: NDArray[np.generic] = flat.view(torch.uint8).numpy().view(dtype.storage)
    return TensorInfo(name, dtype, tuple(tensor.shape)), storage


def devices() -> tuple[tuple[str, str], ...]:
    """The names that ``--device`` accepts on this machine, each with a description."""
    found = [("cpu", f"{torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return tuple(found)


class _Lane(threading.local):
    """What a thread needs to move its blocks to the device and back."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.buffers: dict[int, torch.Tensor] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream):  # None has no effect
            yield

    def buffer(self, number: int, size: int) -> torch.Tensor:
        """Buffer `number` with `size` bytes of memory that the device can read and write by itself."""
        if number not in self.buffers or len(self.buffers[number]) < size:
            self.buffers[number] = torch.empty(size, dtype=torch.uint8, pin_memory=self.stream is not None)
        return self.buffers[number][:size]

    def send(self, number: int, storage: StorageArray, dtype: DType) -> torch.Tensor:
        buffer = self.buffer(number, storage.nbytes)
        buffer.numpy()[:] = np.ascontiguousarray(storage).view(np.uint8)
        return buffer.to(self.device, non_blocking=True).view(torch_dtype(dtype))

    def fetch(self, number: int, tensor: torch.Tensor, dtype: DType) -> StorageArray:
        raw = tensor.view(torch.uint8)
        buffer = self.buffer(number, len(raw)).copy_(raw, non_blocking=True)
        if self.stream is not None:  # pragma: no cover: needs a GPU
            self.stream.synchronize()
        return buffer.numpy().view(dtype.storage)

"""The arithmetic of ``arithmetic.py`` on a torch device, with the same roundings; and tensors on their way to a device.

Each thread has its own page-locked buffers and, on CUDA, its own stream. While one thread's block is computed,
another's is on its way to the device and a third's on its way back. This module alone imports torch here.
"""

import gc
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.checkpoint import BY_TORCH, DType, TensorInfo
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.arithmetic import Mix, Scratch, StorageArray, Sums
from mergekit_wise.merging.backends import mix_on_cpu

_EXACT_DTYPES = frozenset({"F16", "BF16", "F32", "F64", "C64"})
"""Dtypes that torch rounds to as this tool does. Versions of torch differ in how float8 overflows."""

# Messages of backends that raise no OutOfMemoryError.
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "insufficient memory")


def open_torch(device: str) -> Mix:
    """A `Mix` on a torch device. Raises UsageError if there is no such device, or if its memory runs out."""
    lane = _Lane(open_device(device))
    exact = exact_dtypes(lane.device)

    def mix(
        a: StorageArray, b: StorageArray, dtypes: tuple[DType, DType], out: DType, alpha: float, scratch: Scratch
    ) -> tuple[StorageArray, Sums]:
        if not exact.issuperset(dtype.name for dtype in (*dtypes, out)):
            return mix_on_cpu(a, b, dtypes, out, alpha, scratch)
        real = _computing_type(torch_dtype(dtypes[0]), torch_dtype(dtypes[1]))
        try:
            with lane.open():
                x, y = (_parts(lane.send(*each)).to(real) for each in ((0, a, dtypes[0]), (1, b, dtypes[1])))
                sums = torch.stack([(y - x).square().sum(), x.square().sum()])
                data = lane.fetch(2, mixture(x, y, _parts_of(torch_dtype(out)), alpha), out)
                distance, norm = sums.tolist()
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            raise UsageError(
                f"--device {device}: its memory ran out while mixing. Use --device cpu, which gives the same bytes."
            ) from error
        # Which of its bits a NaN keeps is left to the device, and only infinite or NaN inputs give one.
        if not (math.isfinite(distance) and math.isfinite(norm)):
            return mix_on_cpu(a, b, dtypes, out, alpha, scratch)
        return data, (distance, norm)

    return mix


def exact_dtypes(device: torch.device) -> frozenset[str]:
    """The names of dtypes that are mixed on a device with the bytes of the CPU; float64 is on few devices."""
    return _EXACT_DTYPES if device.type in ("cpu", "cuda") else _EXACT_DTYPES - {"F64"}


def mixture(x: torch.Tensor, y: torch.Tensor, out: torch.dtype, alpha: float) -> torch.Tensor:
    """(1 - alpha) * x + alpha * y, in float32 or wider, rounded once to `out`, which is one of the exact dtypes."""
    if x.is_complex():
        return torch.view_as_complex(mixture(_parts(x), _parts(y), _parts_of(out), alpha))
    real = _computing_type(x.dtype, y.dtype)
    # Separate operations: an addcmul or lerp would fuse the product with the sum and round once less.
    return torch.mul(x.to(real), 1 - alpha).add_(torch.mul(y.to(real), alpha)).to(out)


def mix_into(
    targets: list[torch.Tensor],
    xs: list[torch.Tensor],
    ys: list[torch.Tensor],
    out: torch.dtype,
    alpha: float,
) -> None:
    """Set float32 `targets` to what `mixture` gives for tensors of the same shapes, of 16 or 32 bits.

    A few operations for all of them, whatever their number. They take the memory of `targets` once more.
    """
    torch._foreach_copy_(targets, xs)
    torch._foreach_mul_(targets, 1 - alpha)
    others = [torch.empty_like(target) for target in targets]
    torch._foreach_copy_(others, ys)
    torch._foreach_mul_(others, alpha)
    torch._foreach_add_(targets, others)
    if out != torch.float32:
        rounded = [torch.empty_like(target, dtype=out) for target in targets]
        torch._foreach_copy_(rounded, targets)
        torch._foreach_copy_(targets, rounded)


def _computing_type(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    return torch.promote_types(torch.promote_types(_parts_of(a), _parts_of(b)), torch.float32)


def _parts(x: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs: a product with a complex coefficient would change the signs of zeros."""
    return torch.view_as_real(x) if x.is_complex() else x


def _parts_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.complex64 else dtype


def is_memory_error(error: RuntimeError) -> bool:
    """Whether memory ran out; only CUDA has its own exception for that."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(message in text for message in _OUT_OF_MEMORY)


def release(device: torch.device) -> None:
    """Give back the memory that torch keeps on a device for later, and that of objects which refer to each other."""
    gc.collect()
    if device.type == "cuda":  # pragma: no cover: needs a GPU
        torch.cuda.empty_cache()
    elif device.type == "mps":  # pragma: no cover: needs a GPU
        torch.mps.empty_cache()


def _compute(device: torch.device) -> None:
    """Run a kernel, and wait for its result."""
    torch.zeros(8, device=device).add_(1).sum().item()


def open_device(name: str, compute: Callable[[torch.device], None] = _compute) -> torch.device:
    """The torch device of this name, on which `compute` runs. Raises UsageError if this machine has none."""
    try:
        device = torch.device(name)
        compute(device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError, TypeError) as error:
        raise UsageError(f"--device {name}: {_reason(str(error))}, or use --device cpu.") from error
    return device


def _reason(message: str) -> str:
    """Why torch cannot use a device, and what helps, given its message."""
    text = message.lower()
    if "no kernel image" in text:
        built = f", which was built for {', '.join(torch.cuda.get_arch_list())}" if torch.cuda.is_available() else ""
        return (
            f"this version of torch ({torch.__version__}{built}) has no code for this GPU. Install one that has "
            "(https://pytorch.org/get-started)"
        )
    if "no nvidia driver" in text or "driver" in text:
        return f"the GPU's driver is missing or too old ({_shortened(message)}). Install or update it"
    if "not compiled with" in text or "not linked" in text or "could not run 'aten::" in text:
        return (
            f"this version of torch ({torch.__version__}) was built without support for it. Install one with it "
            "(https://pytorch.org/get-started)"
        )
    if "out of memory" in text:
        return "its memory is full. Wait until other programs have released it"
    if "invalid device ordinal" in text:
        return "there is no such GPU. Name one that 'wise --devices' lists"
    return f"torch cannot use it ({_shortened(message)}). Name one that 'wise --devices' lists"


def _shortened(message: str) -> str:
    lines = message.splitlines() or [""]
    return lines[0].partition(". ")[0][:120]


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


@dataclass(frozen=True, slots=True)
class Coming:
    """A tensor on its way to the CPU."""

    copy: torch.Tensor
    arrival: torch.cuda.Event | None

    def wait(self) -> torch.Tensor:
        """The tensor on the CPU."""
        if self.arrival is not None:  # pragma: no cover: needs a GPU
            self.arrival.synchronize()
        return self.copy


def fetch(values: torch.Tensor) -> Coming:
    """Begin to copy values to the CPU, as soon as they are computed; what the device is given later is not waited for.

    ``values.cpu()`` would wait until the device had nothing left to do.
    """
    if values.device.type != "cuda":
        return Coming(values.cpu(), None)
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)  # pragma: no cover: needs a GPU
    copy.copy_(values, non_blocking=True)  # pragma: no cover: needs a GPU
    arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # pragma: no cover: needs a GPU
    arrival.record()  # pragma: no cover: needs a GPU
    return Coming(copy, arrival)  # pragma: no cover: needs a GPU


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
        # Elsewhere than on CUDA the buffer could be filled again before it was read.
        return buffer.to(self.device, non_blocking=self.stream is not None).view(torch_dtype(dtype))

    def fetch(self, number: int, tensor: torch.Tensor, dtype: DType) -> StorageArray:
        raw = tensor.reshape(-1).view(torch.uint8)
        buffer = self.buffer(number, len(raw)).copy_(raw, non_blocking=self.stream is not None)
        if self.stream is not None:  # pragma: no cover: needs a GPU
            self.stream.synchronize()
        return buffer.numpy().view(dtype.storage)

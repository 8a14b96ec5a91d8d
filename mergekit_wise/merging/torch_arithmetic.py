"""The arithmetic of ``arithmetic.py`` on a torch device, rounding for rounding. Only this module here needs torch."""

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.devices import Mix


def open_torch(device: str) -> Mix:
    """A `Mix` on a torch device. Raises UsageError if there is no such device."""
    place = open_device(device)

    def mix(
        a: NDArray[np.generic],
        b: NDArray[np.generic],
        dtypes: tuple[DType, DType],
        out: DType,
        alpha: float,
    ) -> NDArray[np.generic]:
        kind = _computing_type(dtypes, out)
        x, y = _send(a, dtypes[0], place).to(kind), _send(b, dtypes[1], place).to(kind)
        # Separate operations: an addcmul or lerp would fuse the product with the sum and round once less.
        total = torch.add(torch.mul(x, 1 - alpha), torch.mul(y, alpha))
        return _fetch(total.to(_torch_dtype(out)), out)

    return mix


def open_device(name: str) -> torch.device:
    """The torch device of this name. Raises UsageError if this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: torch cannot use it ({reason}). Use --device cpu.") from error
    return device


def _computing_type(dtypes: tuple[DType, DType], out: DType) -> torch.dtype:
    if out.kind == "complex":
        return torch.complex64
    return torch.float64 if any(dtype.name == "F64" for dtype in dtypes) else torch.float32


def _torch_dtype(dtype: DType) -> torch.dtype:
    found = getattr(torch, dtype.torch)
    assert isinstance(found, torch.dtype)
    return found


def _send(carrier: NDArray[np.generic], dtype: DType, place: torch.device) -> torch.Tensor:
    raw = torch.from_numpy(np.array(carrier).view(np.uint8))
    return raw.to(place).view(_torch_dtype(dtype))


def _fetch(tensor: torch.Tensor, dtype: DType) -> NDArray[np.generic]:
    raw: NDArray[np.uint8] = tensor.view(torch.uint8).cpu().numpy()
    return raw.view(dtype.carrier)

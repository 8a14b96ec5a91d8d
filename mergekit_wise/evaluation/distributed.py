"""Collective operations of the processes that torchrun started. Knows no data set and no model.

A process that was started by itself has rank 0 of 1 and sends nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mergekit_wise import launcher
from mergekit_wise.errors import WiseError
from mergekit_wise.signals import ending_waits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_TIMEOUT = timedelta(hours=6)
"""How long a process waits for the others: the slowest one must read its part of the largest data set."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The number of this process, the number of processes, and the device on which arrays are reduced."""

    rank: int
    size: int
    device: str

    def share(self, value: T) -> T:
        """The value of rank 0, in every process."""
        if self.size == 1:
            return value
        from torch import distributed

        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def maximum(self, array: NDArray[np.int32]) -> NDArray[np.int32]:
        """The elementwise maximum over all processes."""
        if self.size == 1:
            return array
        import torch
        from torch import distributed

        tensor = torch.from_numpy(array).to(self.device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.cpu().numpy()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Raise an error of one process in all of them at the end of the block, so that none waits forever."""
        error: WiseError | None = None
        try:
            yield
        except WiseError as raised:
            error = raised
        first = next((found for found in self.gather(error) if found is not None), None)
        if first is not None:
            raise first


ALONE = Ranks(0, 1, "cpu")


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """The rank of this process among those that torchrun started, and its device: for `cuda`, its own GPU."""
    size = launcher.world_size()
    if size == 1:
        yield ALONE, device
        return
    import torch
    from torch import distributed

    if device == "cuda":
        device = f"cuda:{launcher.local_rank()}"
    where = torch.device(device)
    if distributed.is_initialized():  # by a caller: torchrun's processes can form a group only once
        yield Ranks(distributed.get_rank(), size, device), device
        return
    if where.type == "cuda":  # pragma: no cover: needs a GPU
        torch.cuda.set_device(where)
    else:
        _share_cores()
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"  # objects are always sent through gloo
    with ending_waits(f"Interrupted while process {launcher.rank()} was waiting for the other processes."):
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), size, device), device
    finally:
        distributed.destroy_process_group()


def _share_cores() -> None:
    """Undo the single thread per process that torchrun sets if OMP_NUM_THREADS is not set."""
    import torch

    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // launcher.local_world_size()))

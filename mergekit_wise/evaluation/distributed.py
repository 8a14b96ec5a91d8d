"""The processes that torchrun started, as one: who computes what, and how it comes together.

Knows no data set and no model. A process that was started alone has rank 0 of 1 and sends nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from mergekit_wise.errors import WiseError

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others: until the slowest has read its part of the largest data set."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Number of the process, and how many there are; `device` is where arrays are brought together."""

    rank: int
    size: int
    device: torch.device

    def share(self, value: T) -> T:
        """What rank 0 has for `value`, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def everyone(self, value: T) -> list[T]:
        """What every process has for `value`, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def largest(self, array: NDArray[np.int32]) -> NDArray[np.int32]:
        """Element by element the largest that any process has."""
        if self.size == 1:
            return array
        tensor = torch.from_numpy(array).to(self.device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.cpu().numpy()

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """An error of one process in the block becomes an error of all at its end, so that none waits for ever."""
        error: WiseError | None = None
        try:
            yield
        except WiseError as raised:
            error = raised
        first = next((found for found in self.everyone(error) if found is not None), None)
        if first is not None:
            raise first


ALONE = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """The ranks that torchrun started, and the device of this one: of `cuda`, the card of its local rank."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    place = torch.device(device)
    if distributed.is_initialized():  # by whoever called this: torchrun's processes can meet only once
        yield Ranks(distributed.get_rank(), size, place), device
        return
    if place.type == "cuda":  # pragma: no cover: needs a GPU
        torch.cuda.set_device(place)
    else:
        _share_cores()
    # Objects go through gloo wherever the arrays are.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), size, place), device
    finally:
        distributed.destroy_process_group()


def _share_cores() -> None:
    """Where OMP_NUM_THREADS says nothing, torchrun gives each of its processes a single thread."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))

"""Collective operations of the processes that torchrun started. Knows no data set and no model.

A process that was started by itself has rank 0 of 1, sends nothing, and imports no torch here.
"""

from __future__ import annotations

import os
import pickle
import re
import socket
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mergekit_wise import launcher
from mergekit_wise.cores import usable_cores
from mergekit_wise.errors import UsageError, WiseError
from mergekit_wise.signals import ending_stuck_waits, ending_waits
from mergekit_wise.wording import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

_TIMEOUT = timedelta(hours=6)
"""How long a process waits for the others: the slowest one must read its part of the largest data set."""

PATIENCE = "WISE_RENDEZVOUS_MINUTES"
"""The variable that says how many minutes processes wait for each other at the start."""

_MINUTES = 10.0

_CHUNK = 1 << 24
"""Elements of an array that are added up at a time: few on a GPU, and long enough for the network."""


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

    def opened(self, key: Hashable, opening: Callable[[], T]) -> T:
        """What `opening` returns in rank 0, in every process, so that one alone lists the files of a data set.

        Each process opens it itself if their keys differ, such as paths on the disks of several machines, or if it
        cannot be sent, such as functions of the caller's.
        """
        if self.size == 1:
            return opening()
        if len(set(self.gather(key))) > 1:
            with self.agreeing():
                return opening()
        sent: bytes | None = None
        with self.agreeing():
            if self.rank == 0:
                own = opening()
                sent = _pickled(own)
        sent = self.share(sent)
        with self.agreeing():
            if self.rank == 0:
                return own
            if sent is None:
                return opening()
            received: T = pickle.loads(sent)
            return received

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of rank 0, which are on the CPU, in every process; what the others give is ignored."""
        if self.size == 1:
            return tensors
        import torch
        from torch import distributed

        facts = self.share([(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()])
        if self.rank:
            tensors = {name: torch.empty(shape, dtype=dtype) for name, shape, dtype in facts}
        for tensor in tensors.values():
            if tensor.numel():
                distributed.broadcast(tensor.reshape(-1).view(torch.uint8), src=0)
        return tensors

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """The tensors [n, ...] of all processes, by rank; n may differ."""
        if self.size == 1:
            return [rows]
        import torch
        from torch import distributed

        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(self.size)]
        distributed.all_gather(counts, count)
        sizes = torch.cat(counts).tolist()
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return [part[:size] for part, size in zip(parts, sizes, strict=True)]

    def maximum(self, array: NDArray[np.int32]) -> NDArray[np.int32]:
        """The elementwise maximum over all processes."""
        return self._reduced(array, "MAX")

    def total(self, array: NDArray[np.int32]) -> NDArray[np.int32]:
        """The elementwise sum over all processes."""
        return self._reduced(array, "SUM")

    def _reduced(self, array: NDArray[np.int32], how: str) -> NDArray[np.int32]:
        if self.size == 1:
            return array
        import numpy as np
        import torch
        from torch import distributed

        flat = np.array(array).reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            part = torch.from_numpy(flat[start : start + _CHUNK]).to(self.device)
            distributed.all_reduce(part, getattr(distributed.ReduceOp, how))
            flat[start : start + _CHUNK] = part.cpu().numpy()
        return flat.reshape(array.shape)

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
    """The rank of this process among those that torchrun started, and its device: for `cuda`, its own GPU.

    Raises UsageError if torchrun's variables are wrong or it is not known which GPU that is, WiseError if another
    process does not come.
    """
    size = launcher.world_size()
    if size == 1:
        yield ALONE, device
        return
    import torch
    from torch import distributed

    if device == "cuda":
        device = f"cuda:{own_gpu(launcher.local_rank(), torch.cuda.device_count())}"
    where = torch.device(device)
    if distributed.is_initialized():  # by a caller: torchrun's processes can form a group only once
        yield Ranks(distributed.get_rank(), size, device), device
        return
    if where.type == "cuda":  # pragma: no cover: needs a GPU
        torch.cuda.set_device(where)
    else:
        _share_cores()
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"  # objects are always sent through gloo
    rank, patience = launcher.rank(), _patience()
    with ending_waits(f"Interrupted while process {rank} was waiting for the other processes."):
        store = _meet(rank, size, patience)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        with ending_stuck_waits(f"Interrupted. Process {rank} waited for another one, in vain.", _waits_at):
            yield Ranks(rank, size, device), device
    finally:
        distributed.destroy_process_group()


def own_gpu(local_rank: int | None, visible: int) -> int:
    """The number of this process's GPU among those that it sees. Raises UsageError if it is not clear, or has none.

    Schedulers may show each process its own GPU alone, whatever the number of the process.
    """
    if visible == 1:
        return 0
    if local_rank is None:
        raise UsageError(
            f"--device cuda: this machine has {visible} GPUs, and LOCAL_RANK does not say which is this process's. "
            "Start the processes with torchrun, or let each see one GPU, with CUDA_VISIBLE_DEVICES."
        )
    if 0 < visible <= local_rank:
        raise UsageError(
            f"--device cuda: this is process {local_rank} (from 0) of its machine, which has {visible} GPUs. Start at "
            f"most {visible} processes per machine, with --nproc-per-node."
        )
    return local_rank


def _patience() -> timedelta:
    """How long processes wait for each other at the start. Raises UsageError."""
    text = os.environ.get(PATIENCE, "")
    try:
        minutes = float(text) if text else _MINUTES
        if not 0 < minutes < 1e6:
            raise ValueError
    except ValueError:
        raise UsageError(f"{PATIENCE}={text}: expected a number of minutes above 0.") from None
    return timedelta(minutes=minutes)


def _meet(rank: int, size: int, patience: timedelta) -> Any:
    """The store through which processes find each other, once all have come. Raises WiseError that says who has not."""
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if not rank < size:
        raise UsageError(f"RANK={rank} and WORLD_SIZE={size}: the ranks of {size} processes are 0 to {size - 1}.")
    waited = f"Process {rank} of {size} waited {patience.total_seconds() / 60:g} minutes for the others"
    advice = f"Look at the messages of the others, or wait longer with {PATIENCE}."
    try:
        store, _, _ = next(rendezvous("env://", timeout=patience))
    except ValueError as error:
        raise UsageError(f"torchrun's variables are wrong: {error}.") from error
    except distributed.DistError as error:
        raise WiseError(_why_not_met(str(error), rank, waited, advice)) from error
    keys = [f"wise/{other}" for other in range(size)]
    try:
        store.set(keys[rank], socket.gethostname())
        store.wait(keys, patience)
        return store
    except distributed.DistError as error:
        try:
            there = [store.check([key]) for key in keys]
        except distributed.DistError:
            raise WiseError(
                f"Process {rank} of {size} lost the connection to process 0, which has probably ended. Look at its "
                "messages."
            ) from error
        # Process 0 holds the store, unless torchrun does, and is there even if it waits for others to enter its name.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            there[0] = True
        missing = listed((number for number, found in enumerate(there) if not found), 8)
        raise WiseError(f"{waited}. Missing: {missing}. {advice}") from error


def _why_not_met(reason: str, rank: int, waited: str, advice: str) -> str:
    """The sentence for an error of torch's store."""
    address = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if found := re.search(r"(\d+)/\d+ clients joined", reason):
        return f"{waited}. {found[1]} have come, this one included. {advice}"
    if rank == 0:
        first = reason.splitlines()[0].removesuffix(".")
        return f"{address}: process 0 cannot listen here ({first}). Choose another --master-port."
    return f"{waited}. Process 0 is not reached at {address} (MASTER_ADDR and MASTER_PORT). {advice}"


def _waits_at() -> object:
    """Where the main thread waits for other processes, or computes what it will send them; None elsewhere."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    if frame is None or not module.startswith(("torch.distributed", "torch.autograd.graph")):
        return None
    return frame, frame.f_lasti


def _pickled(value: object) -> bytes | None:
    """The value in bytes; None if it cannot be sent."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None


def _share_cores() -> None:
    """Undo the single thread per process that torchrun sets if OMP_NUM_THREADS is not set."""
    import torch

    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, usable_cores() // launcher.local_world_size()))

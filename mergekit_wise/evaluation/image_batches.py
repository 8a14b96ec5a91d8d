"""Decodes a data set's images, once each, into uint8 batches of one shape, by worker processes. Knows no model.

Workers decode a few images at a time directly into shared memory; only errors are sent back.
"""

import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.cores import usable_cores
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError
from mergekit_wise.launcher import local_world_size
from mergekit_wise.models.own_transform import OwnTransform
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.signals import blocked, unblock

CHUNK = 16
"""Images per task of a worker."""

MOST_WORKERS = 32
"""Workers unless more are asked for: they decode as many images as any GPU computes, and each takes memory."""

_FORKS = "fork" in get_all_start_methods() and sys.platform == "linux"
"""Whether workers have what this process has in memory; others are sent it."""

_SHOWN = 5
"""How many unreadable images an error names."""

Indices = NDArray[np.int64]
Pixels = NDArray[Any]
Preprocessing = Preprocess | OwnTransform
Bad = tuple[int, str]
"""An unreadable image: its index, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of a data set.

    Attributes:
        pixels: uint8 [B, 3, H, W], or float32 [B, C, H, W] by a transform of the user's; zeros in rows after the last
            index, and in those of unreadable images.
        indices: of the images, int64 [n], n <= B.
        bad: unreadable images.
    """

    pixels: Pixels
    indices: Indices
    bad: tuple[Bad, ...]


def default_workers() -> int:
    """One worker per core that this process may use, up to 32; processes that torchrun started share the cores."""
    return max(1, min(usable_cores() // local_world_size(), MOST_WORKERS))


def decoded(
    dataset: Dataset, preprocess: Preprocessing, batches: Sequence[Indices], batch_size: int, *, workers: int, hold: int
) -> Generator[Batch, None, None]:
    """The images of `batches`, in their order.

    A batch's pixels are valid until `hold` more batches were requested. Decoding runs `hold` batches ahead, in
    `workers` processes; without workers it runs in this process, and not ahead.

    Raises SuiteError if a worker dies. The generator must be closed if it is not exhausted.
    """
    if workers and batches and (_FORKS or _is_picklable(dataset, preprocess)):
        return _in_processes(dataset, preprocess, batches, batch_size, workers, hold)
    return _in_process(dataset, preprocess, batches, batch_size)


def require_few(dataset: Dataset, bad: Mapping[int, str], allowed: int) -> None:
    """Raise SuiteError if more than `allowed` images of a data set are unreadable, or all; `bad` says why, by index."""
    if len(bad) <= allowed and len(bad) < len(dataset):
        return
    shown = " ".join(list(bad.values())[:_SHOWN])
    more = f" And {len(bad) - _SHOWN} more." if len(bad) > _SHOWN else ""
    images = "1 image is" if len(bad) == 1 else f"{len(bad)} images are"
    if len(bad) == len(dataset):
        raise SuiteError(f"{dataset.title}: no image can be read, so nothing can be measured. {shown}{more}")
    raise SuiteError(
        f"{dataset.title}: {images} unreadable, but only {allowed} may be. {shown}{more} "
        "Replace them, or tolerate them with --max-bad."
    )


def is_taken_as_stored(dataset: Dataset, preprocess: Preprocessing) -> bool:
    """Whether the images are neither resized nor cropped, because they are stored cropped to the size of the model's.

    The size is that of the first image that can be read.
    """
    for index in range(len(dataset) if dataset.is_cropped else 0):
        try:
            return preprocess.takes_as_stored(dataset.image(index))
        except SuiteError:
            continue
    return False


def notes_on_bad(dataset: Dataset, bad: Mapping[int, str]) -> list[str]:
    """A note for each unreadable image that was tolerated."""
    return [f"{dataset.title}: {reason} It is not counted." for _, reason in sorted(bad.items())]


@dataclass(frozen=True, slots=True)
class _SharedArray:
    """The path of memory that the processes of this machine share, its shape, [slots, B, C, H, W], and its dtype.

    multiprocessing's shared memory is in /dev/shm, for which a container has 64 MB, and a process that writes more is
    killed.
    """

    path: str
    shape: tuple[int, ...]
    dtype: type[np.uint8] | type[np.float32]

    def open(self) -> Pixels:
        """The memory, as an array that is shared."""
        return np.memmap(self.path, self.dtype, "r+", shape=self.shape)


@contextmanager
def shared_memory(
    shape: tuple[int, ...], dtype: type[np.uint8] | type[np.float32] = np.uint8
) -> Iterator[_SharedArray]:
    """Shared memory of zeros, whose pages are allocated on the first write, and freed at the end of the block."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("wise")
        path = f"/proc/{os.getpid()}/fd/{file}"
    else:
        file, path = tempfile.mkstemp(prefix="wise-")
    try:
        os.ftruncate(file, prod(shape) * np.dtype(dtype).itemsize)
        yield _SharedArray(path, shape, dtype)
    finally:
        os.close(file)
        if not path.startswith("/proc/"):
            Path(path).unlink(missing_ok=True)


def _in_process(
    dataset: Dataset, preprocess: Preprocessing, batches: Sequence[Indices], batch_size: int
) -> Generator[Batch, None, None]:
    for indices in batches:
        pixels = np.zeros((batch_size, *preprocess.shape), preprocess.dtype)
        yield Batch(pixels, indices, decode(dataset, preprocess, indices, pixels))


def _in_processes(
    dataset: Dataset, preprocess: Preprocessing, batches: Sequence[Indices], batch_size: int, workers: int, hold: int
) -> Generator[Batch, None, None]:
    slots = min(2 * hold, len(batches))
    with shared_memory((slots, batch_size, *preprocess.shape), preprocess.dtype) as shared:
        memory = shared.open()
        pool = ProcessPoolExecutor(
            min(workers, sum(ceil(len(indices) / CHUNK) for indices in batches)),
            # Forked workers do not import torch again, and data sets need not be pickled.
            get_context("fork" if _FORKS else "spawn"),
            initializer=_begin,
            initargs=(dataset, preprocess, shared, os.getpid()),
        )
        try:
            coming: deque[list[Future[tuple[Bad, ...]]]] = deque()
            for number, indices in enumerate(batches):
                free = max(0, number - hold + 1) + slots
                with blocked():  # the first submission starts the workers
                    for ahead in range(number + len(coming), min(free, len(batches))):
                        coming.append(_submit(pool, batches[ahead], ahead % slots))
                bad = tuple(entry for future in coming.popleft() for entry in future.result())
                memory[number % slots, len(indices) :] = 0
                yield Batch(memory[number % slots], indices, bad)
        except BrokenProcessPool as error:
            raise SuiteError(
                f"{dataset.title}: an image-decoding process was killed, probably because memory ran out. "
                "Give fewer --workers, or a smaller --batch-size."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _is_picklable(dataset: Dataset, preprocess: Preprocessing) -> bool:
    """Whether workers can be sent a data set and its preprocessing: not functions that were defined in others."""
    try:
        pickle.dumps((dataset, preprocess))
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True


def _submit(pool: ProcessPoolExecutor, indices: Indices, slot: int) -> list[Future[tuple[Bad, ...]]]:
    starts = range(0, len(indices), CHUNK)
    return [pool.submit(_work, slot, start, indices[start : start + CHUNK]) for start in starts]


def decode(dataset: Dataset, preprocess: Preprocessing, indices: Indices, rows: Pixels) -> tuple[Bad, ...]:
    """Decode the images into the first of `rows` [n, C, H, W]; returns the unreadable ones, whose rows are zeros."""
    bad: list[Bad] = []
    for row, index in zip(rows, map(int, indices), strict=False):
        try:
            _write(dataset, preprocess, index, row)
        except SuiteError as error:
            bad.append((index, str(error)))
            row[...] = 0
        except (OSError, ValueError) as error:
            bad.append((index, f"{dataset.sample(index)}: cannot be {preprocess.action}: {error}"))
            row[...] = 0
    return tuple(bad)


def _write(dataset: Dataset, preprocess: Preprocessing, index: int, row: Pixels) -> None:
    image = dataset.image(index)
    if dataset.is_cropped and preprocess.takes_as_stored(image):
        row[...] = np.asarray(image).transpose(2, 0, 1)
    else:
        preprocess.write(image, row)
    if dataset.corrupt is not None:
        row[...] = dataset.corrupt(index, np.ascontiguousarray(row.transpose(1, 2, 0))).transpose(2, 0, 1)


_worker: dict[str, Any] = {}
"""The data set, preprocessing and memory of a worker process; empty in every other process."""


def _begin(dataset: Dataset, preprocess: Preprocessing, shared: _SharedArray, parent: int) -> None:
    """Initialise a worker."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unblock()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Pillow's, on odd metadata, would be printed by every worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker.update(dataset=dataset, preprocess=preprocess, memory=shared.open())


def _end_with(parent: int) -> None:
    """End with the parent: if it was killed, a worker would wait forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(slot: int, start: int, indices: Indices) -> tuple[Bad, ...]:
    return decode(_worker["dataset"], _worker["preprocess"], indices, _worker["memory"][slot, start:])

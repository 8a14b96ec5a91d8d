"""A data set's images in batches of one shape, uint8, decoded once each, by worker processes. Knows no model.

Workers decode a few images at a time straight into their place in shared memory; only what went wrong is sent back.
"""

import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.shared import SharedArray, shared_array
from mergekit_wise.models.transform import Preprocess

CHUNK = 16
"""Images that a worker is given at a time."""

Indices = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Bad = tuple[int, str]
"""An image that cannot be read: its index, and what is the matter."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of a data set.

    Attributes:
        pixels: uint8 [B, 3, H, W]; zeros in rows after the last index, and in those of bad images.
        indices: of the images, int64 [n], n <= B.
        bad: images that could not be read.
    """

    pixels: Pixels
    indices: Indices
    bad: tuple[Bad, ...]


def default_workers() -> int:
    """One a core that this process may use, at most 8; processes that torchrun started share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 8))


def decoded(
    dataset: Dataset, preprocess: Preprocess, batches: Sequence[Indices], batch_size: int, *, workers: int, hold: int
) -> Generator[Batch, None, None]:
    """The images of `batches`, in their order.

    A batch's pixels are good until `hold` more batches have been asked for. Decoding runs ahead by `hold` batches,
    in `workers` processes; in this one, and not ahead, if there are none.

    Raises SuiteError if a worker dies. The generator must be closed if it is not run to its end.
    """
    if workers and batches:
        return _in_processes(dataset, preprocess, batches, batch_size, workers, hold)
    return _in_process(dataset, preprocess, batches, batch_size)


def _in_process(
    dataset: Dataset, preprocess: Preprocess, batches: Sequence[Indices], batch_size: int
) -> Generator[Batch, None, None]:
    for indices in batches:
        pixels = np.zeros((batch_size, 3, *preprocess.size), np.uint8)
        yield Batch(pixels, indices, _decode(dataset, preprocess, indices, pixels))


def _in_processes(
    dataset: Dataset, preprocess: Preprocess, batches: Sequence[Indices], batch_size: int, workers: int, hold: int
) -> Generator[Batch, None, None]:
    places = min(2 * hold, len(batches))
    with shared_array((places, batch_size, 3, *preprocess.size)) as shared:
        memory = shared.open()
        pool = ProcessPoolExecutor(
            min(workers, sum(ceil(len(indices) / CHUNK) for indices in batches)),
            # Forked workers need no import of torch, and data sets need not be pickled.
            get_context("fork" if "fork" in get_all_start_methods() and sys.platform == "linux" else "spawn"),
            initializer=_begin,
            initargs=(dataset, preprocess, shared, os.getpid()),
        )
        try:
            coming: deque[list[Future[tuple[Bad, ...]]]] = deque()
            for number, indices in enumerate(batches):
                free = max(0, number - hold + 1) + places
                for ahead in range(number + len(coming), min(free, len(batches))):
                    coming.append(_submit(pool, batches[ahead], ahead % places))
                bad = tuple(entry for future in coming.popleft() for entry in future.result())
                memory[number % places, len(indices) :] = 0
                yield Batch(memory[number % places], indices, bad)
        except BrokenProcessPool as error:
            raise SuiteError(
                f"{dataset.title}: a process that decodes images was ended from outside, as happens when memory runs "
                "out. Give fewer with --workers, or a smaller --batch-size."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, indices: Indices, place: int) -> list[Future[tuple[Bad, ...]]]:
    starts = range(0, len(indices), CHUNK)
    return [pool.submit(_work, place, start, indices[start : start + CHUNK]) for start in starts]


def _decode(dataset: Dataset, preprocess: Preprocess, indices: Indices, places: Pixels) -> tuple[Bad, ...]:
    """Fill the first of `places` [n, 3, H, W] with the images; returns those that cannot be read."""
    bad: list[Bad] = []
    for place, index in zip(places, map(int, indices), strict=False):
        place[...] = 0
        try:
            pixels = preprocess.pixels(dataset.image(index)).numpy()
        except SuiteError as error:
            bad.append((index, str(error)))
            continue
        except (OSError, ValueError) as error:
            bad.append((index, f"{dataset.sample(index)}: cannot be resized: {error}"))
            continue
        place[...] = _corrupted(dataset, index, pixels)
    return tuple(bad)


def _corrupted(dataset: Dataset, index: int, pixels: Pixels) -> Pixels:
    if dataset.corrupt is None:
        return pixels
    return dataset.corrupt(index, pixels.transpose(1, 2, 0)).transpose(2, 0, 1)


_worker: dict[str, Any] = {}
"""What a worker process works on; empty in every other process."""


def _begin(dataset: Dataset, preprocess: Preprocess, shared: SharedArray, parent: int) -> None:
    """Runs once in every worker."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of Pillow, on odd metadata, once in every worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker.update(dataset=dataset, preprocess=preprocess, memory=shared.open())


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(place: int, start: int, indices: Indices) -> tuple[Bad, ...]:
    return _decode(_worker["dataset"], _worker["preprocess"], indices, _worker["memory"][place, start:])

"""Streams two checkpoints into one or several outputs: each block is read once, mixed and written, on all cores.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from mergekit_wise.merging.arithmetic import Scratch, StorageArray
from mergekit_wise.merging.mixing import NOTHING, SMALL, Mixer, MixStatistics, TensorSource, blocks
from mergekit_wise.merging.plan import TensorPlan
from mergekit_wise.progress import Progress

TOGETHER = 256
"""Small tensors that a thread takes over at once."""

Put = Callable[[str, int, StorageArray], None]
"""Takes bytes of an output: a tensor's name, the first byte in the tensor, and the data."""


@dataclass(frozen=True, slots=True)
class Sink:
    """An output: the plans of its tensors, and a function that takes their bytes.

    `put` is called from several threads at once, for parts of tensors in any order.
    """

    plans: Sequence[TensorPlan]
    put: Put


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was planned for a tensor, where it was taken from, and statistics over its elements if it was mixed."""

    plan: TensorPlan
    source: TensorSource
    statistics: MixStatistics

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.plan.info.name


def relative_distance(outcomes: Iterable[Outcome]) -> float | None:
    """||theta_1 - theta_0|| / ||theta_0|| over all mixed tensors (Frobenius norms); None if there are none."""
    mixed = [outcome.statistics for outcome in outcomes if outcome.source == "mixed"]
    norm = sum(each.squared_norm for each in mixed)
    return math.sqrt(sum(each.squared_distance for each in mixed) / norm) if norm > 0 else None


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor of one of the sinks."""

    sink: int
    plan: TensorPlan


@dataclass(slots=True)
class _Tensor:
    """A tensor for all sinks that hold it.

    `sources` says where each part is taken from. It is None while both sides are equal as far as they were read: what
    is equal is copied meanwhile, and mixed after all if a difference turns up later.
    """

    parts: Sequence[_Part]
    sources: Sequence[TensorSource] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, mixer: Mixer, *, equal: bool) -> Sequence[TensorSource]:
        """Settle the sources. Two tensors are looked at once for each tolerance, however many sinks hold them."""
        with self.lock:
            if self.sources is None:
                found: dict[tuple[str, float | None], TensorSource] = {}
                for part in self.parts:
                    key = part.plan.action, part.plan.frozen_tolerance
                    if key not in found:
                        found[key] = mixer.source_given(part.plan, equal=equal)
                self.sources = [found[part.plan.action, part.plan.frozen_tolerance] for part in self.parts]
            return self.sources


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements `start` to `stop` of a tensor."""

    tensor: _Tensor
    start: int
    stop: int

    @property
    def name(self) -> str:
        return self.tensor.parts[0].plan.info.name

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * sum(part.plan.info.dtype.itemsize for part in self.tensor.parts)


@dataclass(frozen=True, slots=True)
class _Written:
    """The statistics of a piece for each part, and the sources it was written from; None if both sides were equal."""

    sources: Sequence[TensorSource] | None
    statistics: Sequence[MixStatistics]


_Job = list[_Piece]
"""What a thread takes over at once: a piece of a large tensor, or many small tensors."""


def stream(mixer: Mixer, sinks: Sequence[Sink], progress: Progress) -> list[tuple[Outcome, ...]]:
    """Compute every tensor of every sink; returns for each sink the outcomes of its tensors, in its order.

    The tensors are read in the order of the first sink, each once, and the bytes of both sides are compared on the way.
    A tensor that is equal up to some later element is read again.
    """
    jobs = list(_jobs(mixer, sinks))
    total, done = sum(piece.nbytes for job in jobs for piece in job), 0
    # Threads wait for each other where every tensor is small: most of the time is the interpreter's.
    all_small = all(piece.stop - piece.start < SMALL for job in jobs for piece in job)
    written: list[list[_Written]] = []
    pool = ThreadPoolExecutor(1 if all_small else mixer.backend.threads)
    try:
        work = _worker(mixer, sinks)
        for job, result in zip(jobs, pool.map(work, jobs), strict=True):
            written.append(result)
            done += sum(piece.nbytes for piece in job)
            progress("Merging", done, total, "bytes")
        again = [number for number, job in enumerate(jobs) if _is_outdated(job, written[number])]
        for number, result in zip(again, pool.map(work, [jobs[number] for number in again]), strict=True):
            written[number] = result
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    return _outcomes(mixer, sinks, jobs, written)


def _jobs(mixer: Mixer, sinks: Sequence[Sink]) -> Iterator[_Job]:
    parts: dict[str, list[_Part]] = {}
    for number, sink in enumerate(sinks):
        for plan in sink.plans:
            parts.setdefault(plan.info.name, []).append(_Part(number, plan))
    together: _Job = []
    for of_tensor in parts.values():
        tensor, count = _Tensor(of_tensor), of_tensor[0].plan.info.count
        if not any(mixer.compares(part.plan) for part in of_tensor):
            tensor.decide(mixer, equal=False)
        if count < SMALL:
            together.append(_Piece(tensor, 0, count))
            if len(together) == TOGETHER:
                yield together
                together = []
            continue
        for start, stop in blocks(0, count, mixer.backend.chunk):
            yield [_Piece(tensor, start, stop)]
    if together:
        yield together


def _is_outdated(job: _Job, results: list[_Written]) -> bool:
    """Whether a piece was copied as equal before its tensor turned out to differ elsewhere."""
    return any(
        result.sources is None and piece.tensor.sources is not None for piece, result in zip(job, results, strict=True)
    )


def _outcomes(
    mixer: Mixer, sinks: Sequence[Sink], jobs: list[_Job], written: list[list[_Written]]
) -> list[tuple[Outcome, ...]]:
    """The statistics of a tensor's pieces are added in their order, whichever thread was first."""
    found: list[dict[str, Outcome]] = [{} for _ in sinks]
    for job, results in zip(jobs, written, strict=True):
        for piece, result in zip(job, results, strict=True):
            sources = piece.tensor.decide(mixer, equal=True)
            for part, source, added in zip(piece.tensor.parts, sources, result.statistics, strict=True):
                of_sink = found[part.sink]
                earlier = of_sink.get(piece.name)
                statistics = added if earlier is None else earlier.statistics + added
                of_sink[piece.name] = Outcome(part.plan, source, statistics)
    return [tuple(of_sink[plan.info.name] for plan in sink.plans) for sink, of_sink in zip(sinks, found, strict=True)]


def _worker(mixer: Mixer, sinks: Sequence[Sink]) -> Callable[[_Job], list[_Written]]:
    local = threading.local()
    files = (*mixer.pair.zeroshot.files, *mixer.pair.finetuned.files)

    def written(piece: _Piece) -> _Written:
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
        if piece.stop - piece.start < SMALL:
            return _computed(mixer, sinks, piece, scratch)
        with _mapped(mixer, piece):
            return _computed(mixer, sinks, piece, scratch)

    def work(job: _Job) -> list[_Written]:
        found = [written(piece) for piece in job]
        for file in files:
            file.require_whole()
        return found

    return work


@contextmanager
def _mapped(mixer: Mixer, piece: _Piece) -> Iterator[None]:
    """Map a piece of the checkpoints that are read; mapped pages count as memory of the process."""
    sources = piece.tensor.sources or ("mixed",)
    sides = {id(side): side for source in sources for side in mixer.checkpoints(source)}.values()
    for side in sides:  # by identity: checkpoints are not hashable
        side.expect(piece.name, piece.start, piece.stop)
    yield
    for side in sides:
        side.forget(piece.name, piece.start, piece.stop)


def _computed(mixer: Mixer, sinks: Sequence[Sink], piece: _Piece, scratch: Scratch) -> _Written:
    tensor = piece.tensor
    if tensor.sources is None:
        as_equal = [mixer.source_given(part.plan, equal=True) for part in tensor.parts]
        statistics = _put(mixer, sinks, piece, as_equal, scratch, only_equal=True)
        if statistics is not None:
            return _Written(None, statistics)
    sources = tensor.decide(mixer, equal=False)
    statistics = _put(mixer, sinks, piece, sources, scratch)
    assert statistics is not None
    return _Written(sources, statistics)


def _put(
    mixer: Mixer,
    sinks: Sequence[Sink],
    piece: _Piece,
    sources: Sequence[TensorSource],
    scratch: Scratch,
    *,
    only_equal: bool = False,
) -> list[MixStatistics] | None:
    """Put a piece of every part into its sink; with `only_equal`, up to the first block in which the sides differ.

    Returns statistics for each part; None if the sides differ.
    """
    tensor = piece.tensor
    statistics = [NOTHING] * len(tensor.parts)
    for start, stop in blocks(piece.start, piece.stop, mixer.backend.block) if piece.stop else [(0, 0)]:
        if only_equal and (tensor.sources is not None or not mixer.same(piece.name, start, stop)):
            return None
        for number, (part, source) in enumerate(zip(tensor.parts, sources, strict=True)):
            data, added = mixer.block(part.plan, source, start, stop, scratch)
            if added is not NOTHING:
                statistics[number] = added if statistics[number] is NOTHING else statistics[number] + added
            sinks[part.sink].put(piece.name, start * part.plan.info.dtype.itemsize, data)
    return statistics

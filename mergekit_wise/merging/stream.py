"""Streams two checkpoints into one or several outputs: each block is read once, mixed and written, on all cores.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements `start` to `stop` of a tensor, for all sinks that hold it.

    `sources` are known before the first piece of a large tensor is read; those of a small one are found with its piece.
    """

    parts: Sequence[_Part]
    sources: Sequence[TensorSource] | None
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * sum(part.plan.info.dtype.itemsize for part in self.parts)


Found = tuple[TensorSource, MixStatistics]


def stream(mixer: Mixer, sinks: Sequence[Sink], progress: Progress) -> list[tuple[Outcome, ...]]:
    """Compute every tensor of every sink; returns for each sink the outcomes of its tensors, in its order.

    The tensors are read in the order of the first sink, each once.
    """
    jobs = list(_jobs(mixer, sinks))
    total, done = sum(piece.nbytes for job in jobs for piece in job), 0
    found: list[dict[str, Found]] = [{} for _ in sinks]
    # Threads wait for each other where every tensor is small: most of the time is the interpreter's.
    all_small = all(piece.sources is None for job in jobs for piece in job)
    pool = ThreadPoolExecutor(1 if all_small else mixer.backend.threads)
    try:
        for job, results in zip(jobs, pool.map(_worker(mixer, sinks), jobs), strict=True):
            for piece, of_parts in zip(job, results, strict=True):
                for part, (source, added) in zip(piece.parts, of_parts, strict=True):
                    name, of_sink = part.plan.info.name, found[part.sink]
                    of_sink[name] = (source, of_sink[name][1] + added if name in of_sink else added)
                done += piece.nbytes
            progress("Merging", done, total, "bytes")
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    return [
        tuple(Outcome(plan, *of_sink[plan.info.name]) for plan in sink.plans)
        for sink, of_sink in zip(sinks, found, strict=True)
    ]


def _jobs(mixer: Mixer, sinks: Sequence[Sink]) -> Iterator[list[_Piece]]:
    """What a thread takes over at once: a piece of a large tensor, or many small tensors."""
    parts: dict[str, list[_Part]] = {}
    for number, sink in enumerate(sinks):
        for plan in sink.plans:
            parts.setdefault(plan.info.name, []).append(_Part(number, plan))
    together: list[_Piece] = []
    for of_tensor in parts.values():
        count = of_tensor[0].plan.info.count
        if count < SMALL:
            together.append(_Piece(of_tensor, None, 0, count))
            if len(together) == TOGETHER:
                yield together
                together = []
            continue
        sources = _sources(mixer, of_tensor)
        for start, stop in blocks(0, count, mixer.backend.chunk):
            yield [_Piece(of_tensor, sources, start, stop)]
    if together:
        yield together


def _sources(mixer: Mixer, parts: Sequence[_Part]) -> Sequence[TensorSource]:
    """Where each part is taken from. Two tensors are compared once for each tolerance, however many sinks hold them."""
    found: dict[tuple[str, float | None], TensorSource] = {}
    for part in parts:
        if (part.plan.action, part.plan.frozen_tolerance) not in found:
            found[part.plan.action, part.plan.frozen_tolerance] = mixer.source(part.plan)
    return [found[part.plan.action, part.plan.frozen_tolerance] for part in parts]


def _worker(mixer: Mixer, sinks: Sequence[Sink]) -> Callable[[list[_Piece]], list[list[Found]]]:
    local = threading.local()
    files = (*mixer.pair.zeroshot.files, *mixer.pair.finetuned.files)

    def work(job: list[_Piece]) -> list[list[Found]]:
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
        found = [_mixed(mixer, sinks, piece, scratch) for piece in job]
        for file in files:
            file.require_whole()
        return found

    return work


def _mixed(mixer: Mixer, sinks: Sequence[Sink], piece: _Piece, scratch: Scratch) -> list[Found]:
    """Compute a piece and write it; returns for each part where it was taken from, with statistics."""
    name = piece.parts[0].plan.info.name
    sources = _sources(mixer, piece.parts) if piece.sources is None else piece.sources
    statistics = [NOTHING] * len(piece.parts)
    checkpoints: dict[int, Checkpoint] = {}
    if piece.stop - piece.start >= SMALL:  # by identity: checkpoints are not hashable
        checkpoints = {id(each): each for source in sources for each in mixer.checkpoints(source)}
    for checkpoint in checkpoints.values():
        checkpoint.expect(name, piece.start, piece.stop)
    for start, stop in blocks(piece.start, piece.stop, mixer.backend.block) if piece.stop else [(0, 0)]:
        for number, (part, source) in enumerate(zip(piece.parts, sources, strict=True)):
            data, added = mixer.block(part.plan, source, start, stop, scratch)
            if added is not NOTHING:
                statistics[number] = added if statistics[number] is NOTHING else statistics[number] + added
            sinks[part.sink].put(name, start * part.plan.info.dtype.itemsize, data)
    for checkpoint in checkpoints.values():  # mapped pages count as memory of the process
        checkpoint.forget(name, piece.start, piece.stop)
    return list(zip(sources, statistics, strict=True))

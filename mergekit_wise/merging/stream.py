"""Streams two checkpoints into one or several outputs: each block is read once, mixed and written, on all cores.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mergekit_wise.merging.arithmetic import Scratch, StorageArray
from mergekit_wise.merging.mixing import NOTHING, Mixer, MixStatistics, TensorSource, blocks
from mergekit_wise.merging.plan import TensorPlan
from mergekit_wise.progress import Progress

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
    source: TensorSource


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements `start` to `stop` of a tensor, for all sinks that hold it."""

    parts: Sequence[_Part]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * sum(part.plan.info.dtype.itemsize for part in self.parts)


def stream(mixer: Mixer, sinks: Sequence[Sink], progress: Progress) -> list[tuple[Outcome, ...]]:
    """Compute every tensor of every sink; returns for each sink the outcomes of its tensors, in its order.

    The tensors are read in the order of the first sink, each once.
    """
    parts = _parts(mixer, sinks)
    pieces = [piece for of_tensor in parts.values() for piece in _pieces(mixer, of_tensor)]
    total, done = sum(piece.nbytes for piece in pieces), 0
    statistics = {(part.sink, name): NOTHING for name, of_tensor in parts.items() for part in of_tensor}
    pool = ThreadPoolExecutor(mixer.backend.threads)
    try:
        for piece, found in zip(pieces, pool.map(_worker(mixer, sinks), pieces), strict=True):
            for part, added in zip(piece.parts, found, strict=True):
                statistics[part.sink, part.plan.info.name] += added
            done += piece.nbytes
            progress("Merging", done, total, "bytes")
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    sources = {(part.sink, name): part.source for name, of_tensor in parts.items() for part in of_tensor}
    return [
        tuple(Outcome(plan, sources[key := (number, plan.info.name)], statistics[key]) for plan in sink.plans)
        for number, sink in enumerate(sinks)
    ]


def _parts(mixer: Mixer, sinks: Sequence[Sink]) -> dict[str, list[_Part]]:
    """The parts of each tensor. Two tensors are compared once, however many sinks hold them."""
    parts: dict[str, list[_Part]] = {}
    sources: dict[tuple[str, str], TensorSource] = {}
    for number, sink in enumerate(sinks):
        for plan in sink.plans:
            key = (plan.info.name, plan.action)
            if key not in sources:
                sources[key] = mixer.source(plan)
            parts.setdefault(plan.info.name, []).append(_Part(number, plan, sources[key]))
    return parts


def _pieces(mixer: Mixer, parts: Sequence[_Part]) -> Iterator[_Piece]:
    count = parts[0].plan.info.count
    spans = blocks(0, count, mixer.backend.chunk) if count else [(0, 0)]
    return (_Piece(parts, start, stop) for start, stop in spans)


def _worker(mixer: Mixer, sinks: Sequence[Sink]) -> Callable[[_Piece], list[MixStatistics]]:
    local = threading.local()

    def work(piece: _Piece) -> list[MixStatistics]:
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
        name = piece.parts[0].plan.info.name
        # By identity: checkpoints are not hashable.
        checkpoints = {id(each): each for part in piece.parts for each in mixer.checkpoints(part.source)}
        statistics = [NOTHING] * len(piece.parts)
        for checkpoint in checkpoints.values():
            checkpoint.expect(name, piece.start, piece.stop)
        for start, stop in blocks(piece.start, piece.stop, mixer.backend.block):
            for number, part in enumerate(piece.parts):
                data, added = mixer.block(part.plan, part.source, start, stop, scratch)
                statistics[number] += added
                sinks[part.sink].put(name, start * part.plan.info.dtype.itemsize, data)
        for checkpoint in checkpoints.values():  # mapped pages count as memory of the process
            checkpoint.forget(name, piece.start, piece.stop)
        return statistics

    return work

"""Chunks flow from two checkpoints into one or several: read once, mix, write, on all cores at once.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.mixing import NOTHING, Mixer, Tally
from mergekit_wise.merging.outcomes import Outcome
from mergekit_wise.merging.plan import Step
from mergekit_wise.merging.sources import TensorSource, blocks
from mergekit_wise.progress import Progress

Put = Callable[[str, int, NDArray[np.generic]], None]
"""Takes bytes of an output: a tensor's name, the byte to start at, and data."""


@dataclass(frozen=True, slots=True)
class Sink:
    """An output: what becomes of each tensor in it, and what takes the bytes.

    `put` is called from several threads at once, for parts of tensors in any order.
    """

    steps: Sequence[Step]
    put: Put


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor on its way into one of the sinks."""

    sink: int
    step: Step
    source: TensorSource


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements `start` to `stop` of a tensor, for all the sinks that it goes into."""

    parts: Sequence[_Part]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * sum(part.step.info.dtype.itemsize for part in self.parts)


def stream(mixer: Mixer, sinks: Sequence[Sink], progress: Progress) -> list[tuple[Outcome, ...]]:
    """Compute every tensor of every sink, and say for each sink what happened to its tensors, in its order.

    The tensors are read in the order of the first sink, each once.
    """
    parts = _parts(mixer, sinks)
    pieces = [piece for of_tensor in parts.values() for piece in _pieces(mixer, of_tensor)]
    total, done = sum(piece.nbytes for piece in pieces), 0
    tallies = {(part.sink, name): NOTHING for name, of_tensor in parts.items() for part in of_tensor}
    pool = ThreadPoolExecutor(mixer.engine.threads)
    try:
        for piece, seen in zip(pieces, pool.map(_worker(mixer, sinks), pieces), strict=True):
            for part, tally in zip(piece.parts, seen, strict=True):
                tallies[part.sink, part.step.info.name] += tally
            done += piece.nbytes
            progress("Merging", done, total, "bytes")
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    sources = {(part.sink, name): part.source for name, of_tensor in parts.items() for part in of_tensor}
    return [
        tuple(Outcome(step, sources[key := (number, step.info.name)], tallies[key]) for step in sink.steps)
        for number, sink in enumerate(sinks)
    ]


def _parts(mixer: Mixer, sinks: Sequence[Sink]) -> dict[str, list[_Part]]:
    """By tensor; whether two tensors are equal is looked at once, however many sinks ask."""
    parts: dict[str, list[_Part]] = {}
    sources: dict[tuple[str, str], TensorSource] = {}
    for number, sink in enumerate(sinks):
        for step in sink.steps:
            name, key = step.info.name, (step.info.name, step.action)
            if key not in sources:
                sources[key] = mixer.source(step)
            parts.setdefault(name, []).append(_Part(number, step, sources[key]))
    return parts


def _pieces(mixer: Mixer, parts: Sequence[_Part]) -> Iterator[_Piece]:
    count = parts[0].step.info.count
    spans = blocks(0, count, mixer.engine.chunk) if count else [(0, 0)]
    return (_Piece(parts, start, stop) for start, stop in spans)


def _worker(mixer: Mixer, sinks: Sequence[Sink]) -> Callable[[_Piece], list[Tally]]:
    local = threading.local()

    def work(piece: _Piece) -> list[Tally]:
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
        name = piece.parts[0].step.info.name
        # By identity: checkpoints are not hashable.
        sources = {id(source): source for part in piece.parts for source in mixer.checkpoints(part.step, part.source)}
        tallies = [NOTHING] * len(piece.parts)
        for source in sources.values():
            source.expect(name, piece.start, piece.stop)
        for start, stop in blocks(piece.start, piece.stop, mixer.engine.block):
            for number, part in enumerate(piece.parts):
                data, seen = mixer.block(part.step, part.source, start, stop, scratch)
                tallies[number] += seen
                sinks[part.sink].put(name, start * part.step.info.dtype.itemsize, data)
        for source in sources.values():  # mapped pages count as memory of the process
            source.forget(name, piece.start, piece.stop)
        return tallies

    return work

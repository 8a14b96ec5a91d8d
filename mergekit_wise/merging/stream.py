"""Chunks flow from two checkpoints into one: read, mix, write, on all cores at once.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.fates import Fate, blocks
from mergekit_wise.merging.mixing import NOTHING, Mixer, Tally
from mergekit_wise.merging.outcomes import Outcome
from mergekit_wise.merging.plan import Step
from mergekit_wise.progress import Progress

Put = Callable[[str, int, NDArray[np.generic]], None]
"""Takes bytes of the output: a tensor's name, the byte to start at, and data."""


@dataclass(frozen=True, slots=True)
class _Piece:
    step: Step
    fate: Fate
    start: int
    stop: int


def stream(mixer: Mixer, steps: Sequence[Step], put: Put, progress: Progress) -> tuple[Outcome, ...]:
    """Compute every tensor in the order of `steps` and hand its bytes to `put`; returns what happened to each.

    `put` is called from several threads at once, for parts of tensors in any order.
    """
    pieces = [piece for step in steps for piece in _pieces(mixer, step)]
    total, done = sum(step.info.nbytes for step in steps), 0
    tallies = {step.info.name: NOTHING for step in steps}
    pool = ThreadPoolExecutor(mixer.engine.threads)
    try:
        for piece, tally in zip(pieces, pool.map(_worker(mixer, put), pieces), strict=True):
            tallies[piece.step.info.name] += tally
            done += (piece.stop - piece.start) * piece.step.info.dtype.itemsize
            progress("Merging", done, total, "bytes")
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    fates = {piece.step.info.name: piece.fate for piece in pieces}
    return tuple(Outcome(step, fates[step.info.name], tallies[step.info.name]) for step in steps)


def _pieces(mixer: Mixer, step: Step) -> Iterator[_Piece]:
    fate = mixer.fate(step)
    spans = blocks(0, step.info.count, mixer.engine.chunk) if step.info.count else [(0, 0)]
    return (_Piece(step, fate, start, stop) for start, stop in spans)


def _worker(mixer: Mixer, put: Put) -> Callable[[_Piece], Tally]:
    local = threading.local()

    def work(piece: _Piece) -> Tally:
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
        info = piece.step.info
        sources = mixer.sources(piece.step, piece.fate)
        tally = NOTHING
        for source in sources:
            source.expect(info.name, piece.start, piece.stop)
        for start, stop in blocks(piece.start, piece.stop, mixer.engine.block):
            data, seen = mixer.block(piece.step, piece.fate, start, stop, scratch)
            tally += seen
            put(info.name, start * info.dtype.itemsize, data)
        for source in sources:  # mapped pages count as memory of the process
            source.forget(info.name, piece.start, piece.stop)
        return tally

    return work

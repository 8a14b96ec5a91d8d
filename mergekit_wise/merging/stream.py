"""Chunks flow from two checkpoints into one: read, mix, write, on all cores at once.

Memory does not grow with the checkpoints: a thread holds one block of a few hundred kilobytes at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Layout, Writer
from mergekit_wise.merging.arithmetic import computing_type, decode
from mergekit_wise.merging.devices import Engine
from mergekit_wise.merging.fates import Fate, Outcome, blocks, fate_of, source_of
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import Step
from mergekit_wise.progress import Progress


@dataclass(frozen=True, slots=True)
class _Piece:
    step: Step
    fate: Fate
    start: int
    stop: int


def stream(
    pair: Pair,
    plan: Iterable[Step],
    alpha: float,
    layout: Layout,
    write: Writer,
    engine: Engine,
    progress: Progress,
) -> tuple[Outcome, ...]:
    """Carry out `plan`, writing every tensor where `layout` puts it; returns what happened to each."""
    steps = {step.info.name: step for step in plan}
    # In the order of the file to be written, so that the disk sees one long run.
    pieces = [piece for info in layout.infos for piece in _pieces(pair, steps[info.name], engine)]
    total, done = sum(info.nbytes for info in layout.infos), 0
    outcomes = {piece.step.info.name: Outcome(piece.step.info.name, piece.fate) for piece in pieces}
    work = _worker(pair, alpha, layout, write, engine)
    pool = ThreadPoolExecutor(engine.threads)
    try:
        for piece, (moved, norm) in zip(pieces, pool.map(work, pieces), strict=True):
            outcome = outcomes[piece.step.info.name]
            outcomes[outcome.name] = replace(outcome, moved=outcome.moved + moved, norm=outcome.norm + norm)
            done += (piece.stop - piece.start) * piece.step.info.dtype.itemsize
            progress("Merging", done, total, "bytes")
    finally:
        # Also on Ctrl-C: no thread may still write while the partial file is being removed.
        pool.shutdown(wait=True, cancel_futures=True)
    return tuple(outcomes[name] for name in steps)


def mix_whole(pair: Pair, step: Step, alpha: float, engine: Engine) -> NDArray[np.generic]:
    """One tensor of the mixture in memory, flattened, with the very bytes that `stream` would write."""
    fate = fate_of(pair, step, engine.block)
    if fate == "mixed":
        spans = blocks(0, step.info.count, engine.block)
        parts = [_mixed(pair, step, alpha, engine, *span)[0] for span in spans]
        return np.concatenate(parts)
    return source_of(pair, fate).read(step.info.name)


def _pieces(pair: Pair, step: Step, engine: Engine) -> Iterator[_Piece]:
    fate = fate_of(pair, step, engine.block)
    spans = blocks(0, step.info.count, engine.chunk) if step.info.count else [(0, 0)]
    return (_Piece(step, fate, start, stop) for start, stop in spans)


def _worker(
    pair: Pair, alpha: float, layout: Layout, write: Writer, engine: Engine
) -> Callable[[_Piece], tuple[float, float]]:
    def work(piece: _Piece) -> tuple[float, float]:
        name, width = piece.step.info.name, piece.step.info.dtype.itemsize
        moved = norm = 0.0
        for start, stop in blocks(piece.start, piece.stop, engine.block):
            if piece.fate == "mixed":
                data, *squares = _mixed(pair, piece.step, alpha, engine, start, stop)
                moved, norm = moved + squares[0], norm + squares[1]
            else:
                data = source_of(pair, piece.fate).read(name, start, stop)
            write(layout.offsets[name] + start * width, data)
        return moved, norm

    return work


def _mixed(
    pair: Pair, step: Step, alpha: float, engine: Engine, start: int, stop: int
) -> tuple[NDArray[np.generic], float, float]:
    """A block of the mixture, and its sums of (b - a)^2 and a^2."""
    name = step.info.name
    a, b = pair.zeroshot.read(name, start, stop), pair.finetuned.read(name, start, stop)
    dtypes = (pair.zeroshot.info(name).dtype, pair.finetuned.info(name).dtype)
    kind = computing_type(dtypes)
    with np.errstate(over="ignore", invalid="ignore"):
        x, y = decode(a, dtypes[0], kind), decode(b, dtypes[1], kind)
        moved, norm = _squares(y - x), _squares(x)
    return engine.mix(a, b, dtypes, step.info.dtype, alpha), moved, norm


def _squares(numbers: NDArray[np.float32] | NDArray[np.float64]) -> float:
    # einsum: one pass, no copy, and one thread, where a BLAS dot product would start threads of its own.
    return float(np.einsum("i,i->", numbers, numbers))

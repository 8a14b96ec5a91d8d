"""Blocks of the mixture: read from both sides, mixed, and looked at. Knows no output."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, DType
from mergekit_wise.merging.arithmetic import (
    Numbers,
    Scratch,
    computing_type,
    decode,
    distance,
    encode,
    mix_fisher,
    squares,
)
from mergekit_wise.merging.backends import Engine
from mergekit_wise.merging.fisher import Fishers
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import Step
from mergekit_wise.merging.sources import TensorSource, blocks, find_source, source_checkpoint


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over elements that were mixed: (b - a)^2, a^2, and how many results are infinite or NaN.

    ``inherited`` are those at which an input is so too; ``broken`` those that only mixing made so.
    """

    moved: float = 0.0
    norm: float = 0.0
    inherited: int = 0
    broken: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.moved + other.moved,
            self.norm + other.norm,
            self.inherited + other.inherited,
            self.broken + other.broken,
        )


NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Mixer:
    """What it takes to compute any block of the mixture."""

    pair: Pair
    engine: Engine
    fishers: Fishers | None = None

    def source(self, step: Step) -> TensorSource:
        """What happens to a tensor; reads both sources up to their first difference."""
        return find_source(self.pair, step, self.engine.block)

    def checkpoints(self, step: Step, source: TensorSource) -> tuple[Checkpoint, ...]:
        """The files that a tensor is read from."""
        return (
            (self.pair.zeroshot, self.pair.finetuned) if source == "mixed" else (source_checkpoint(self.pair, source),)
        )

    def block(
        self, step: Step, source: TensorSource, start: int, stop: int, scratch: Scratch
    ) -> tuple[NDArray[np.generic], Tally]:
        """Elements `start` to `stop` of a tensor of the output, as its dtype's storage.

        The array may lie in `scratch`: it is good until the next block is asked for with that.
        """
        name = step.info.name
        if source != "mixed":
            checkpoint = source_checkpoint(self.pair, source)
            data = checkpoint.read(name, start, stop)
            return _converted(data, checkpoint.info(name).dtype, step.info.dtype, scratch), NOTHING
        return self._mixed(step, start, stop, scratch)

    def whole(self, step: Step) -> NDArray[np.generic]:
        """One tensor of the mixture in memory, flattened: the bytes that a merged file would hold."""
        source = self.source(step)
        spans = blocks(0, step.info.count, self.engine.block) if step.info.count else [(0, 0)]
        scratch = Scratch()
        return np.concatenate([self.block(step, source, *span, scratch)[0].copy() for span in spans])

    def _mixed(self, step: Step, start: int, stop: int, scratch: Scratch) -> tuple[NDArray[np.generic], Tally]:
        name, out = step.info.name, step.info.dtype
        a, b = self.pair.zeroshot.read(name, start, stop), self.pair.finetuned.read(name, start, stop)
        dtypes = (self.pair.zeroshot.info(name).dtype, self.pair.finetuned.info(name).dtype)
        kind = computing_type(dtypes)
        fisher = self.fishers.read(name, start, stop, kind) if self.fishers is not None else None
        if fisher is None:
            data, sums = self.engine.mix(a, b, dtypes, out, step.alpha, scratch)
        else:
            x, y = decode(a, dtypes[0], kind, scratch, 0), decode(b, dtypes[1], kind, scratch, 1)
            sums = (distance(x, y, scratch), squares(x))
            data = encode(mix_fisher(x, y, *fisher, step.alpha), out, scratch)
        convex = 0 <= step.alpha <= 1 and out.itemsize >= min(dtype.itemsize for dtype in dtypes)
        # Sums that are finite show that all inputs are, and then so is a convex mixture in no narrower dtype.
        if convex and fisher is None and all(map(math.isfinite, sums)):
            return data, Tally(*sums)
        results, x, y = (
            decode(storage, dtype, kind, Scratch(), 0)
            for storage, dtype in ((data, out), (a, dtypes[0]), (b, dtypes[1]))
        )
        return data, Tally(*sums, *_not_finite(results, x, y))


def _converted(storage: NDArray[np.generic], have: DType, want: DType, scratch: Scratch) -> NDArray[np.generic]:
    if have == want:
        return storage
    return encode(decode(storage, have, computing_type((have, have)), scratch, 0), want, scratch)


def _not_finite(result: Numbers, x: Numbers, y: Numbers) -> tuple[int, int]:
    """How many of the results are infinite or NaN with an input that is so, and how many without."""
    wrong = ~np.isfinite(result)
    inherited = wrong & ~(np.isfinite(x) & np.isfinite(y))
    return int(inherited.sum()), int(wrong.sum()) - int(inherited.sum())

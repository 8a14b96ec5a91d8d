"""Blocks of the merged model: read from both checkpoints, mixed, and checked. Knows no output."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging.arithmetic import (
    Numbers,
    Scratch,
    StorageArray,
    combine_fisher,
    computing_type,
    decode,
    encode,
    squared_distance,
    squared_norm,
)
from mergekit_wise.merging.backends import Backend
from mergekit_wise.merging.fisher import Fishers
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import TensorPlan

PROBE = 1024
"""Elements of the first comparison of two tensors: those that changed differ at once."""

SMALL = 1 << 12
"""Elements of a tensor below which it is not worth while to tell the system which pages are needed."""

TensorSource = Literal["mixed", "equal", "zeroshot", "finetuned"]
"""`equal`: copied, because both checkpoints hold the same bytes. `zeroshot`, `finetuned`: copied from that side."""


@dataclass(frozen=True, slots=True)
class MixStatistics:
    """Sums over elements that were mixed.

    Attributes:
        squared_distance: of (b - a)^2.
        squared_norm: of a^2.
        inherited: infinite or NaN results with an infinite or NaN input.
        broken: infinite or NaN results of finite inputs.
    """

    squared_distance: float = 0.0
    squared_norm: float = 0.0
    inherited: int = 0
    broken: int = 0

    def __add__(self, other: "MixStatistics") -> "MixStatistics":
        return MixStatistics(
            self.squared_distance + other.squared_distance,
            self.squared_norm + other.squared_norm,
            self.inherited + other.inherited,
            self.broken + other.broken,
        )


NOTHING = MixStatistics()


@dataclass(frozen=True, slots=True)
class Mixer:
    """Computes any block of the merged model."""

    pair: Pair
    backend: Backend
    fishers: Fishers | None = None

    def source(self, plan: TensorPlan) -> TensorSource:
        """Whether a tensor is mixed or copied; compares the bytes of both sides up to the first difference."""
        if plan.action in ("zeroshot", "finetuned"):
            return plan.action
        if self._equal(plan.info.name):
            return "equal"
        return "mixed" if plan.action == "mix" else "finetuned"

    def checkpoints(self, source: TensorSource) -> tuple[Checkpoint, ...]:
        """The checkpoints that a tensor of this source is read from."""
        if source == "mixed":
            return (self.pair.zeroshot, self.pair.finetuned)
        return (self.pair.finetuned if source == "finetuned" else self.pair.zeroshot,)

    def block(
        self, plan: TensorPlan, source: TensorSource, start: int, stop: int, scratch: Scratch
    ) -> tuple[StorageArray, MixStatistics]:
        """Elements `start` to `stop` of an output tensor in its storage dtype, 1-D.

        The array may lie in `scratch`, so it is valid until that is used again.
        """
        if source == "mixed":
            return self._mixed(plan, start, stop, scratch)
        (checkpoint,) = self.checkpoints(source)
        data, dtype = checkpoint.read(plan.info.name, start, stop), checkpoint.info(plan.info.name).dtype
        if dtype != plan.info.dtype:
            numbers = decode(data, dtype, computing_type((dtype, dtype)), scratch, 0)
            data = encode(numbers, plan.info.dtype, scratch)
        return data, NOTHING

    def whole(self, plan: TensorPlan) -> StorageArray:
        """One tensor of the merged model, flattened: the bytes that a merged file would hold."""
        source, scratch = self.source(plan), Scratch()
        spans = blocks(0, plan.info.count, self.backend.block) if plan.info.count else [(0, 0)]
        return np.concatenate([self.block(plan, source, *span, scratch)[0].copy() for span in spans])

    def _mixed(self, plan: TensorPlan, start: int, stop: int, scratch: Scratch) -> tuple[StorageArray, MixStatistics]:
        name, out = plan.info.name, plan.info.dtype
        first, second = self.pair.zeroshot.tensors[name], self.pair.finetuned.tensors[name]
        a, b, dtypes = first.read(start, stop), second.read(start, stop), (first.info.dtype, second.info.dtype)
        real = computing_type(dtypes)
        fisher = self.fishers.read(name, start, stop, real) if self.fishers is not None else None
        if fisher is None:
            data, sums = self.backend.mix(a, b, dtypes, out, plan.alpha, scratch)
        else:
            x, y = decode(a, dtypes[0], real, scratch, 0), decode(b, dtypes[1], real, scratch, 1)
            sums = (squared_distance(x, y, scratch), squared_norm(x))
            data = encode(combine_fisher(x, y, *fisher, plan.alpha), out, scratch)
        convex = 0 <= plan.alpha <= 1 and out.itemsize >= min(dtypes[0].itemsize, dtypes[1].itemsize)
        # Finite sums show that all inputs are finite; then so is a convex combination in a dtype that is no narrower.
        if convex and fisher is None and math.isfinite(sums[0]) and math.isfinite(sums[1]):
            return data, MixStatistics(*sums)
        results, x, y = (
            decode(storage, dtype, real, Scratch(), 0)
            for storage, dtype in ((data, out), (a, dtypes[0]), (b, dtypes[1]))
        )
        return data, MixStatistics(*sums, *_count_not_finite(results, x, y))

    def _equal(self, name: str) -> bool:
        a, b = self.pair.zeroshot.info(name), self.pair.finetuned.info(name)
        if a.dtype != b.dtype:
            return False
        first, count = PROBE, a.count
        if count <= first:
            return self._equal_span(name, 0, count)
        return all(self._equal_span(name, *span) for span in [(0, first), *blocks(first, count, self.backend.block)])

    def _equal_span(self, name: str, start: int, stop: int) -> bool:
        sides = (self.pair.zeroshot, self.pair.finetuned)
        # As bytes: NaN equals NaN with the same bits, and 0.0 differs from -0.0.
        first, second = (side.tensors[name].read(start, stop).tobytes() for side in sides)
        equal = first == second
        if stop - start >= SMALL:  # mapped pages count as memory of the process
            for side in sides:
                side.forget(name, start, stop)
        return equal


def blocks(start: int, stop: int, block: int) -> Iterator[tuple[int, int]]:
    """The consecutive spans of at most `block` elements from `start` to `stop`."""
    return ((at, min(at + block, stop)) for at in range(start, stop, block))


def _count_not_finite(result: Numbers, x: Numbers, y: Numbers) -> tuple[int, int]:
    """How many results are infinite or NaN where an input is, and how many where both inputs are finite."""
    wrong = ~np.isfinite(result)
    inherited = wrong & ~(np.isfinite(x) & np.isfinite(y))
    return int(inherited.sum()), int(wrong.sum()) - int(inherited.sum())

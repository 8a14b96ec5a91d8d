"""Blocks of the merged model: read from both checkpoints, mixed, and checked. Knows no output."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, DType
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
from mergekit_wise.merging.backends import Backend, same_bytes
from mergekit_wise.merging.fisher import Fishers
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import TensorPlan, narrower
from mergekit_wise.merging.soup import Averaged

PROBE = 1024
"""Elements of the first comparison of two tensors: those that changed differ at once."""

_Stored = tuple[StorageArray, DType]

SMALL = 1 << 12
"""Elements of a tensor below which it is not worth while to tell the system which pages are needed."""

TensorSource = Literal["mixed", "equal", "zeroshot", "finetuned"]
"""`equal`: copied, because both checkpoints hold the same bytes. `zeroshot`, `finetuned`: copied from that side.

A tensor that was to be mixed and is copied from one side is equal up to the tolerance for frozen tensors.
"""


@dataclass(frozen=True, slots=True)
class MixStatistics:
    """Sums over elements that were mixed.

    Attributes:
        squared_distance: of (b - a)^2.
        squared_norm: of a^2.
        inherited: infinite or NaN results with an infinite or NaN input.
        broken: infinite or NaN results of finite inputs.
        moved: if the inputs' dtypes differ, elements that differ by more than the rounding to the narrower dtype; not
            all are counted, but at least one if there is one.
    """

    squared_distance: float = 0.0
    squared_norm: float = 0.0
    inherited: int = 0
    broken: int = 0
    moved: int = 0

    def __add__(self, other: "MixStatistics") -> "MixStatistics":
        return MixStatistics(
            self.squared_distance + other.squared_distance,
            self.squared_norm + other.squared_norm,
            self.inherited + other.inherited,
            self.broken + other.broken,
            self.moved + other.moved,
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
        return self.source_given(plan, equal=self.compares(plan) and self._equal(plan.info.name))

    def compares(self, plan: TensorPlan) -> bool:
        """Whether the source depends on whether both sides hold the same bytes, and they may."""
        if plan.action in ("zeroshot", "finetuned"):
            return False
        return self.pair.zeroshot.info(plan.info.name).dtype == self.pair.finetuned.info(plan.info.name).dtype

    def source_given(self, plan: TensorPlan, *, equal: bool) -> TensorSource:
        """Whether a tensor is mixed or copied, if it is known whether both sides hold the same bytes."""
        if plan.action in ("zeroshot", "finetuned"):
            return plan.action
        if equal:
            return "equal"
        if plan.action != "mix":
            return "finetuned"
        if plan.frozen_tolerance is not None and not self._moved(plan.info.name, plan.frozen_tolerance):
            return self._precise_side(plan.info.name)
        return "mixed"

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
        tensor = checkpoint.tensors[plan.info.name]
        data, dtype = tensor.read(start, stop), tensor.info.dtype
        if dtype == plan.info.dtype:
            return data, _of_soup(tensor, data, start, stop) if isinstance(tensor, Averaged) else NOTHING
        numbers = decode(data, dtype, computing_type((dtype, dtype)), scratch, 0)
        converted = encode(numbers, plan.info.dtype, scratch)
        if dtype.itemsize < plan.info.dtype.itemsize:
            return converted, NOTHING
        return converted, MixStatistics(broken=_count_not_finite((converted, plan.info.dtype), (data, dtype))[1])

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
        convex = 0 <= plan.alpha <= 1 and all(dtype == out or dtype.itemsize < out.itemsize for dtype in dtypes)
        # Finite sums show that all inputs are finite; then so is a convex combination in a dtype of no smaller range.
        if convex and fisher is None and math.isfinite(sums[0]) and math.isfinite(sums[1]):
            return data, MixStatistics(*sums, moved=self._moved_in(name, start, stop, 0.0))
        not_finite = _count_not_finite((data, out), (a, dtypes[0]), (b, dtypes[1]))
        return data, MixStatistics(*sums, *not_finite, self._moved_in(name, start, stop, 0.0))

    def _saved_as(self, name: str) -> tuple[DType, DType]:
        """Both sides' dtypes; of a tensor that an adapter changes, and that is computed in a wider one, the base's."""
        return self.pair.zeroshot.tensors[name].saved_as, self.pair.finetuned.tensors[name].saved_as

    def _precise_side(self, name: str) -> Literal["zeroshot", "finetuned"]:
        """The side with the wider dtype; the zero-shot one if the dtypes are the same."""
        first, second = self._saved_as(name)
        return "finetuned" if first != second and narrower(first, second) == first else "zeroshot"

    def _moved(self, name: str, tolerance: float) -> bool:
        """Whether any element differs by more than the tolerance; reads up to the first block with such an element."""
        count = self.pair.zeroshot.info(name).count
        spans = ((0, min(PROBE, count)), *blocks(0, count, self.backend.block))
        for start, stop in spans:
            moved = self._moved_in(name, start, stop, tolerance, always=True)
            for side in (self.pair.zeroshot, self.pair.finetuned):
                side.forget(name, start, stop)
            if moved:
                return True
        return False

    def _moved_in(self, name: str, start: int, stop: int, tolerance: float, *, always: bool = False) -> int:
        """How many elements differ by more than rounding and the tolerance; 0 where dtypes agree, unless `always`."""
        saved = self._saved_as(name)
        if saved[0] == saved[1] and not always:
            return 0
        sides = (self.pair.zeroshot, self.pair.finetuned)
        dtypes = (sides[0].info(name).dtype, sides[1].info(name).dtype)
        real, narrow = computing_type(dtypes), narrower(*saved)
        # Tensors that moved differ in any few elements, and nobody asks in how many.
        for span in ((start, min(start + PROBE, stop)), (start, stop)):
            x, y = (
                decode(side.read(name, *span), dtype, real, Scratch(), 0)
                for side, dtype in zip(sides, dtypes, strict=True)
            )
            if moved := int(np.count_nonzero(~close(x, y, narrow, tolerance))):
                return moved
        return 0

    def _equal(self, name: str) -> bool:
        """Whether both sides of a tensor, which have one dtype, hold the same bytes."""
        for start, stop in blocks(0, self.pair.zeroshot.info(name).count, self.backend.block):
            equal = self.same(name, start, stop)
            if stop - start >= SMALL:  # mapped pages count as memory of the process
                for side in (self.pair.zeroshot, self.pair.finetuned):
                    side.forget(name, start, stop)
            if not equal:
                return False
        return True

    def same(self, name: str, start: int, stop: int) -> bool:
        """Whether both sides, which have one dtype, hold the same bytes in elements `start` to `stop`."""
        first, second = self.pair.zeroshot.tensors[name], self.pair.finetuned.tensors[name]
        if first is second:  # a weight that no adapter changes
            return True
        # As bytes: NaN equals NaN with the same bits, and 0.0 differs from -0.0.
        probe = min(start + PROBE, stop)
        if not same_bytes(first.read(start, probe), second.read(start, probe)):
            return False  # where elements are computed while they are read, those of a tensor that moved are few
        return probe == stop or same_bytes(first.read(probe, stop), second.read(probe, stop))


def blocks(start: int, stop: int, block: int) -> Iterator[tuple[int, int]]:
    """The consecutive spans of at most `block` elements from `start` to `stop`."""
    return ((at, min(at + block, stop)) for at in range(start, stop, block))


def close(x: Numbers, y: Numbers, narrow: DType, tolerance: float = 0.0) -> NDArray[np.bool_]:
    """Whether numbers are equal once rounded to `narrow`, or differ by at most `tolerance` times the larger one."""
    scratch = Scratch()
    a, b = (np.array(decode(encode(side, narrow, scratch), narrow, side.dtype.type, scratch, 0)) for side in (x, y))
    near: NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    if tolerance:
        with np.errstate(over="ignore", invalid="ignore"):
            near |= np.abs(x - y) <= tolerance * np.maximum(np.abs(x), np.abs(y))
    return near


def _of_soup(tensor: Averaged, data: StorageArray, start: int, stop: int) -> MixStatistics:
    """How many elements of a soup are infinite or NaN, with and without an input that is."""
    result = (data, tensor.info.dtype)
    if _finite(result).all():
        return NOTHING
    inputs = ((each.read(start, stop), each.info.dtype) for each in tensor.inputs)
    return MixStatistics(0.0, 0.0, *_count_not_finite(result, *inputs))


def _count_not_finite(result: _Stored, *inputs: _Stored) -> tuple[int, int]:
    """How many results are infinite or NaN where an input is, and how many where all inputs are finite."""
    wrong = ~_finite(result)
    if not wrong.any():
        return 0, 0
    inherited = wrong & ~np.logical_and.reduce([_finite(each) for each in inputs])
    return int(inherited.sum()), int(wrong.sum()) - int(inherited.sum())


def _finite(stored: _Stored) -> NDArray[np.bool_]:
    elements, dtype = stored
    return np.isfinite(decode(elements, dtype, computing_type((dtype, dtype)), Scratch(), 0))

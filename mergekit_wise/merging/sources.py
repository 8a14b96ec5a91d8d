"""What happens to each tensor, once its bytes have been looked at."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import Step

PROBE = 1024
"""Elements of the first look at two tensors."""

TensorSource = Literal["mixed", "equal", "zeroshot", "finetuned"]
"""`equal`: copied, because both sources hold the same bytes. `zeroshot`, `finetuned`: copied from that side."""


def find_source(pair: Pair, step: Step, block: int) -> TensorSource:
    """Whether a tensor is mixed or copied; compares the bytes of both sources up to the first difference."""
    if step.action in ("zeroshot", "finetuned"):
        return step.action
    if _equal(pair, step.info.name, block):
        return "equal"
    return "mixed" if step.action == "mix" else "finetuned"


def source_checkpoint(pair: Pair, source: TensorSource) -> Checkpoint:
    """The side that a tensor of this source is copied from."""
    return pair.finetuned if source == "finetuned" else pair.zeroshot


def blocks(start: int, stop: int, block: int) -> Iterator[tuple[int, int]]:
    """The spans of at most `block` elements that make up `start` to `stop`."""
    return ((at, min(at + block, stop)) for at in range(start, stop, block))


def _equal(pair: Pair, name: str, block: int) -> bool:
    a, b = pair.zeroshot.info(name), pair.finetuned.info(name)
    if a.dtype != b.dtype:
        return False
    # The first look is a short one: tensors that moved differ at once.
    first = min(PROBE, a.count)
    return all(_equal_span(pair, name, *span) for span in [(0, first), *blocks(first, a.count, block)])


def _equal_span(pair: Pair, name: str, start: int, stop: int) -> bool:
    sides = (pair.zeroshot, pair.finetuned)
    a, b = (_bits(side.read(name, start, stop)) for side in sides)
    equal = np.array_equal(a, b)
    for side in sides:  # mapped pages count as memory of the process
        side.forget(name, start, stop)
    return equal


def _bits(storage: NDArray[np.generic]) -> NDArray[np.generic]:
    """As integers: NaN equals NaN of the same bits, and 0.0 differs from -0.0."""
    return np.ascontiguousarray(storage).view(f"u{storage.itemsize}")

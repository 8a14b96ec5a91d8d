"""How far weights moved between two checkpoints: per tensor, and per class of a head."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging.arithmetic import Scratch, decode, squared_distance, squared_norm
from mergekit_wise.merging.mixing import blocks, close
from mergekit_wise.merging.plan import MIXABLE, narrower
from mergekit_wise.progress import Progress

ELEMENTS_AT_ONCE = 1 << 20
HEAD = re.compile(
    r"(?:(?!\d+\.)[^.]+\.)*(?:classification_head|classifier|heads?|fc|linear|logits|last_linear)\.weight"
)
"""The names of heads' weights; not of layers inside numbered blocks."""


@dataclass(frozen=True, slots=True)
class Movement:
    """The change of one tensor from a (zero-shot) to b (fine-tuned).

    Attributes:
        name: the name of the tensor.
        relative: ||b - a|| / ||a|| (Frobenius norms); infinite if a is zero and b is not; None for integers, which
            are only compared.
        cosine: the cosine similarity of a and b, flattened; None if either is zero, or for integers.
        equal: whether all values are the same.
        by_class: for a head, the cosine similarity of each class's weights.
        rounded: whether the values differ, but only by the rounding to the narrower of two dtypes.
    """

    name: str
    relative: float | None
    cosine: float | None
    equal: bool
    by_class: tuple[float, ...] = ()
    rounded: bool = False


def movements(a: Checkpoint, b: Checkpoint, progress: Progress) -> tuple[Movement, ...]:
    """Compare all tensors that both checkpoints hold in the same shape, largest change first; sums are float64."""
    return tuple(sorted(each_movement(a, b, progress), key=lambda m: -order_of(m)))


def each_movement(a: Checkpoint, b: Checkpoint, progress: Progress) -> Iterator[Movement]:
    """The same in the order of the first file, each as soon as it is computed."""
    shared = [name for name in a.tensors if name in b.tensors and a.info(name).shape == b.info(name).shape]
    total, done, scratch = sum(a.info(name).count for name in shared), 0, Scratch()
    for name in shared:
        yield _movement(a, b, name, scratch)
        done += a.info(name).count
        progress("Comparing", done, total, "elements")


def order_of(movement: Movement) -> float:
    """How far a tensor moved, as a number to sort by; -1 where that is unknown."""
    relative = movement.relative
    return -1.0 if relative is None or math.isnan(relative) else relative


def head_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of weights [classes, features] of heads."""
    return tuple(
        name for name, stored in checkpoint.tensors.items() if len(stored.info.shape) == 2 and HEAD.fullmatch(name)
    )


def _movement(a: Checkpoint, b: Checkpoint, name: str, scratch: Scratch) -> Movement:
    first, second = a.info(name).dtype, b.info(name).dtype
    if first.name not in MIXABLE or second.name not in MIXABLE:
        equal = bool(np.array_equal(a.read(name), b.read(name)))
        return Movement(name, None, None, equal)
    moved = norm_a = norm_b = product = 0.0
    rounded = first != second
    with np.errstate(over="ignore", invalid="ignore"):
        for x, y in _numbers(a, b, name, scratch):
            moved += squared_distance(x, y, scratch)
            norm_a, norm_b = norm_a + squared_norm(x), norm_b + squared_norm(y)
            product += float(np.einsum("i,i->", x, y))
            rounded = rounded and bool(close(x, y, narrower(first, second)).all())
    relative = math.sqrt(moved / norm_a) if norm_a else (math.inf if moved else 0.0)
    norms = math.sqrt(norm_a) * math.sqrt(norm_b)
    cosine = product / norms if norms else None
    return Movement(name, relative, cosine, moved == 0, _by_class(a, b, name), rounded and moved != 0)


def _by_class(a: Checkpoint, b: Checkpoint, name: str) -> tuple[float, ...]:
    shape = a.info(name).shape
    if len(shape) != 2 or not HEAD.fullmatch(name):
        return ()
    x, y = (np.concatenate(side).reshape(shape) for side in zip(*_numbers(a, b, name), strict=True))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: NDArray[np.float64] = (x * y).sum(axis=1) / norms
    return tuple(float(value) for value in cosines)


def _numbers(
    a: Checkpoint, b: Checkpoint, name: str, scratch: Scratch | None = None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Blocks of both, which stay valid until the next one where a scratch is given."""
    for span in blocks(0, a.info(name).count, ELEMENTS_AT_ONCE):
        here = scratch or Scratch()
        x = decode(a.read(name, *span), a.info(name).dtype, np.float64, here, 0)
        y = decode(b.read(name, *span), b.info(name).dtype, np.float64, here, 1)
        yield np.asarray(x, np.float64), np.asarray(y, np.float64)

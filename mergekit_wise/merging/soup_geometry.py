"""How the members of a soup lie around the zero-shot model: whether they were fine-tuned from it, and are no copies.

With updates D_i = t_i - t_0, members that were fine-tuned from t_0 have updates that are short beside it. A model that
was trained from another start does not contain t_0: its weights are at right angles to t_0's, so that its update
contains -t_0 and is longer than t_0. All is estimated from samples of the weights.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, Soup
from mergekit_wise.checkpoint.tensors import Tensor
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.plan import MIXABLE
from mergekit_wise.merging.soup import numbers_of, sampled

SAMPLE = 1 << 16
"""Elements of each tensor that are looked at; their sums are scaled to the whole tensor."""

LEAST_LENGTH, LEAST_ANGLE = 0.7, 75.0
"""A member whose update is at least this long, relative to the zero-shot model, and whose weights are at least at this
angle, in degrees, to the zero-shot model's, was not fine-tuned from it. Measured with a small convolutional network and
an MLP, fine-tuned for 300 steps of AdamW on shifted images, to 100 % accuracy: at learning rates from 1e-4 to 1e-2, the
lengths were 0.07 to 1.3 and the angles 4 to 41 degrees; of other starts, 1.4 to 2.1 and 87 to 93 degrees. At 3e-2,
where the soup of two lost 6 to 41 points, fine-tuned ones came to 64 to 78 degrees, and are partly refused."""

COPIES, CLOSE = 1.0, 6.0
"""Degrees between two updates: below the first, members are copies or nearly so; below the second, as close as
consecutive epochs of one run (3 to 6 degrees with small networks; seeds had 8 degrees at a learning rate of 1e-4, where
they hardly leave the start, and 44 to 67 at 1e-2)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Lengths and angles of N members.

    Attributes:
        names: of the members.
        lengths: [N], ||D_i|| / ||t_0||.
        to_start: [N], the angles between t_i and t_0 in degrees.
        angles: [N, N], the angles between D_i and D_j in degrees; NaN where one is zero.
    """

    names: tuple[str, ...]
    lengths: tuple[float, ...]
    to_start: tuple[float, ...]
    angles: tuple[tuple[float, ...], ...]

    @property
    def strangers(self) -> tuple[int, ...]:
        """The numbers of the members that do not look fine-tuned from the zero-shot model."""
        both = zip(self.lengths, self.to_start, strict=True)
        return tuple(
            number for number, (length, angle) in enumerate(both) if length >= LEAST_LENGTH and angle >= LEAST_ANGLE
        )

    def pairs(self, low: float, high: float) -> list[tuple[int, int]]:
        """The pairs of members whose updates are at angles from `low` up to `high` degrees."""
        count = len(self.names)
        return [(i, j) for i in range(count) for j in range(i + 1, count) if low <= self.angles[i][j] < high]


def geometry(zeroshot: Checkpoint, soup: Soup, names: Iterable[str]) -> Geometry | None:
    """The geometry of those of the named tensors that all hold in one shape as numbers; None if there are none.

    Matrices and kernels decide, if there are any: gains of norm layers are alike in all models. Deterministic.
    """
    every = (zeroshot, *soup.members)
    shared = [name for name in names if _is_shared(name, every)]
    shared = [name for name in shared if len(zeroshot.info(name).shape) > 1] or shared
    gram = np.zeros((len(every), len(every)))
    for name in shared:
        gram += _gram([checkpoint.tensors[name] for checkpoint in every])
    if gram[0, 0] == 0:
        return None
    return _of_gram(gram, soup.names)


def require_one_start(found: Geometry, zeroshot: Checkpoint) -> None:
    """Raise MismatchError if members do not look fine-tuned from the zero-shot model, with the numbers that show it."""
    strangers = found.strangers
    if not strangers:
        return
    first = strangers[0]
    others = [
        f"{found.angles[i][j]:.0f} degrees between {found.names[i]} and {found.names[j]}"
        for i, j in found.pairs(0, 181)
        if i in strangers and j in strangers
    ][:3]
    numbers = (
        f"||ft - zs|| / ||zs|| = {found.lengths[first]:.2f} and {found.to_start[first]:.0f} degrees between the "
        f"weights of the two for {found.names[first]}"
    )
    names = ", ".join(found.names[number] for number in strangers)
    between = f"; the updates are at {', '.join(others)}" if others else ""
    raise MismatchError(
        f"Not fine-tuned from {zeroshot.path}, but from another start: {names} ({numbers}{between}). Only fine-tunings "
        "of one model can be averaged. Give the model that all of them started from as the zero-shot checkpoint, or "
        "pass --allow-other-starts to average them anyway."
    )


def notes_on_geometry(found: Geometry, zeroshot: Checkpoint) -> list[str]:
    """What is unusual: members that are the zero-shot model, copies of each other, or as close as epochs of one run."""
    notes = [
        f"{name} holds the weights of {zeroshot.path.name}: it was not fine-tuned"
        for name, length in zip(found.names, found.lengths, strict=True)
        if length == 0
    ]

    def described(pairs: Sequence[tuple[int, int]]) -> str:
        texts = [f"{found.names[i]} and {found.names[j]} ({found.angles[i][j]:.1f} degrees)" for i, j in pairs]
        return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")

    if copies := found.pairs(0, COPIES):
        notes.append(f"copies of each other, or nearly so, which a soup counts twice: {described(copies)}")
    if near := found.pairs(COPIES, CLOSE):
        notes.append(
            "updates in nearly the same direction, as of consecutive epochs of one run, so that a soup gains little: "
            f"{described(near)}"
        )
    if found.strangers:
        names = ", ".join(found.names[number] for number in found.strangers)
        notes.append(
            f"averaged although not fine-tuned from {zeroshot.path.name}, because of --allow-other-starts: {names}"
        )
    return notes


def _is_shared(name: str, every: Sequence[Checkpoint]) -> bool:
    if any(name not in checkpoint.tensors for checkpoint in every):
        return False
    infos = [checkpoint.info(name) for checkpoint in every]
    return all(info.dtype.name in MIXABLE and info.shape == infos[0].shape for info in infos)


def _gram(tensors: Sequence[Tensor]) -> NDArray[np.float64]:
    """The products [1 + N, 1 + N] of t_0 and all D_i with each other, estimated from a sample."""
    spans = sampled(tensors[0], SAMPLE)
    found = np.zeros((len(tensors), len(tensors)))
    for span in spans:
        rows = np.stack([numbers_of(tensor, *span) for tensor in tensors])
        rows[1:] -= rows[0]
        rows[:, ~np.isfinite(rows).all(axis=0)] = 0
        found += np.einsum("ik,jk->ij", rows, rows)
    looked_at = sum(stop - start for start, stop in spans)
    return found * (tensors[0].info.count / looked_at) if looked_at else found


def _of_gram(gram: NDArray[np.float64], names: tuple[str, ...]) -> Geometry:
    norms = np.sqrt(np.diag(gram))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = gram / np.outer(norms, norms)
        weights = np.sqrt(gram[0, 0] + 2 * gram[0, 1:] + np.diag(gram)[1:])  # ||t_i||, as t_i = t_0 + D_i
        to_start = (gram[0, 0] + gram[0, 1:]) / (norms[0] * weights)
    angles = np.degrees(np.arccos(np.clip(cosines[1:, 1:], -1, 1)))
    return Geometry(
        names,
        tuple(float(length) for length in norms[1:] / norms[0]),
        tuple(math.degrees(math.acos(min(max(float(value), -1.0), 1.0))) for value in to_start),
        tuple(tuple(0.0 if i == j else float(value) for j, value in enumerate(row)) for i, row in enumerate(angles)),
    )

"""Which images are learned from at which step: all of it follows from a seed. Knows no image and no model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """A run's way through the images.

    Attributes:
        images: how many there are.
        batch_size: of a step, over all processes.
        epochs: how often each image comes.
        seed: of the order.
        only_full: leave out the batch at an epoch's end that is not full.
    """

    images: int
    batch_size: int
    epochs: int
    seed: int
    only_full: bool = False

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.images // self.batch_size if self.only_full else -(-self.images // self.batch_size)

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps

    def batches(self, epoch: int) -> list[Indices]:
        """The images of each step of an epoch: a permutation of all of them, cut into batches."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(epoch + 1):  # the permutation of an epoch does not depend on where a run began
            order = torch.randperm(self.images, generator=generator)
        batches = [order[start : start + self.batch_size].numpy() for start in range(0, self.images, self.batch_size)]
        return batches[: self.steps]

    def seed_of(self, step: int) -> int:
        """Of whatever else is random in a step: dropout, mixup, the choice of a caption."""
        return seed_of(self.seed, step)


def seed_of(*numbers: int) -> int:
    """A seed that looks like no other, of numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def share(batch: Sequence[int] | Indices, rank: int, size: int) -> slice:
    """The part of a batch that a process computes, in steps of two, so that the pairs of mixup stay together."""
    pairs = -(-len(batch) // 2)
    first, last = (2 * (pairs * place // size) for place in (rank, rank + 1))
    return slice(first, min(last, len(batch)))

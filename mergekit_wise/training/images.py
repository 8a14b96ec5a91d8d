"""Where a run gets its pixels from: memory, or processes that decode while it computes. Knows no model."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.decoding import CHUNK, decoded
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.training.augmentation import Augmentation, augmented
from mergekit_wise.training.batch_order import Indices

ROOM = 1 << 29
"""Bytes of images that are held in memory rather than decoded again in every epoch."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images: `values` [n, ...] on the CPU, their `indices`, int64 [n]; unreadable ones are left out."""

    values: Tensor
    indices: Indices


class Images(Protocol):
    """Whatever is learned from, by numbers."""

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """What `batches` ask for, in their order; each good until the next is asked for."""


@dataclass(frozen=True, slots=True)
class Held:
    """Images, or features of them, in memory: `values` [N, ...]."""

    values: Tensor

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """See `Images`; every epoch is alike."""
        for indices in batches:
            yield Part(self.values[torch.from_numpy(indices)], indices)


@dataclass(slots=True)
class Decoded:
    """Images that are decoded, and changed at random, in every epoch anew.

    Attributes:
        dataset: the images.
        preprocess: resizes and crops what augmentation left to be resized.
        augmentation: the random changes.
        workers: processes that decode; 0 decodes in this one.
        max_bad: how many images may be unreadable; these are left out.
    """

    dataset: Dataset
    preprocess: Preprocess
    augmentation: Augmentation
    workers: int = 0
    max_bad: int = 0
    bad: dict[int, str] = field(default_factory=dict)

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """See `Images`. Raises SuiteError if too many images cannot be read."""
        seen, count = augmented(self.dataset, self.augmentation), len(self.dataset)
        largest = max(map(len, batches), default=1)
        asked = [epoch * count + indices for indices in batches]
        hold = max(2, ceil(4 * self.workers * CHUNK / max(1, largest)))
        with closing(decoded(seen, self.preprocess, asked, largest, workers=self.workers, hold=hold)) as stream:
            for batch, indices in zip(stream, batches, strict=True):
                self._note(dict(batch.bad))
                places = np.arange(len(indices))
                good = places[~np.isin(indices, [place % count for place, _ in batch.bad])]
                yield Part(torch.from_numpy(batch.pixels[good]), indices[good])

    def _note(self, bad: dict[int, str]) -> None:
        self.bad |= {place % len(self.dataset): reason for place, reason in bad.items()}
        if len(self.bad) > self.max_bad:
            raise SuiteError(
                f"{self.dataset.title}: {len(self.bad)} images cannot be read, and {self.max_bad} may be (--max-bad). "
                f"{next(iter(self.bad.values()))}"
            )


def hold(source: Decoded) -> Images:
    """The images, decoded once and held in memory, if they are always the same and not too many."""
    height, width = source.preprocess.size
    count = len(source.dataset)
    if source.augmentation.kind != "none" or count * 3 * height * width > ROOM:
        return source
    pixels = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    batches = np.array_split(np.arange(count), ceil(count / 256))
    for part in source.parts(0, batches):
        pixels[torch.from_numpy(part.indices)] = part.values
    return _HeldBut(pixels, frozenset(source.bad)) if source.bad else Held(pixels)


@dataclass(frozen=True, slots=True)
class _HeldBut:
    """Images in memory, some of which could not be read."""

    values: Tensor
    bad: frozenset[int]

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        kept = [indices[~np.isin(indices, list(self.bad))] for indices in batches]
        yield from Held(self.values).parts(epoch, kept)

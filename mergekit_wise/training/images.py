"""The training images: their order, their augmentation, and where their pixels come from (memory or worker processes).

Everything random follows from the seed, the epoch and the image. Knows no model and no loss.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.evaluation.image_batches import CHUNK, decoded, require_few
from mergekit_wise.models.transform import Preprocess

MEMORY_LIMIT = 1 << 29
"""Up to this many bytes, images are kept in memory instead of being decoded again in every epoch."""
CROP_AREAS = {"crop": (0.9, 1.0), "crop-flip": (0.08, 1.0), "strong": (0.08, 1.0)}
"""Smallest and largest share of an image's area that a random crop keeps, by kind of augmentation."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Which images each step of a run uses.

    Attributes:
        images: the number of images.
        batch_size: images per step, over all processes.
        epochs: passes over the images.
        seed: of the order.
        only_full: leave out the last batch of an epoch if it is not full.
    """

    images: int
    batch_size: int
    epochs: int
    seed: int
    only_full: bool = False

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.images // self.batch_size if self.only_full else -(-self.images // self.batch_size)

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps

    def batches(self, epoch: int) -> list[Indices]:
        """Return the images of each step of an epoch: a permutation of all images, cut into batches."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(epoch + 1):  # the permutation of an epoch does not depend on where a run started
            order = torch.randperm(self.images, generator=generator)
        batches = [order[start : start + self.batch_size].numpy() for start in range(0, self.images, self.batch_size)]
        return batches[: self.steps]

    def seed_of(self, step: int) -> int:
        """Return the seed of everything else that is random in a step: dropout, mixup, the choice of a caption."""
        return seed_of(self.seed, step)


def seed_of(*numbers: int) -> int:
    """Derive a seed from non-negative numbers, so that different numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def share(batch: Sequence[int] | Indices, rank: int, size: int) -> slice:
    """Return the part of a batch that a process computes, cut at even places to keep the pairs of mixup together."""
    pairs = -(-len(batch) // 2)
    first, last = (2 * (pairs * place // size) for place in (rank, rank + 1))
    return slice(first, min(last, len(batch)))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A random change of images. `kind` is one of `AUGMENTATIONS`; `size` is (height, width) of the model's input."""

    kind: str
    size: tuple[int, int]
    interpolation: str
    seed: int

    def __call__(self, image: Image.Image, epoch: int, index: int) -> Image.Image:
        """Return image `index` as it is seen in `epoch`: of the model's size, unless `kind` is "none".

        The result does not depend on the process that decodes the image, nor on the images decoded before it.
        """
        transform = _transform(self)
        if transform is None:
            return image
        # torchvision draws from torch's global generator, which other code may use.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, epoch, index))
            return transform(image)


@cache
def _transform(augmentation: Augmentation) -> Callable[[Image.Image], Image.Image] | None:
    if augmentation.kind == "none":
        return None
    from torchvision import transforms

    mode = transforms.InterpolationMode("bilinear" if augmentation.interpolation == "bilinear" else "bicubic")
    steps = [transforms.RandomResizedCrop(augmentation.size, CROP_AREAS[augmentation.kind], interpolation=mode)]
    if augmentation.kind in ("crop-flip", "strong"):
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.kind == "strong":
        steps.append(transforms.RandAugment(num_ops=2, magnitude=9))
    transform: Callable[[Image.Image], Image.Image] = transforms.Compose(steps)
    return transform


def augmented(dataset: Dataset, augmentation: Augmentation) -> Dataset:
    """Return the data set over all epochs: image ``epoch * N + i`` is image i as it is seen in that epoch."""
    epochs = _Epochs(dataset, augmentation)
    corrupt = None if dataset.corrupt is None else epochs.corrupt
    return replace(dataset, image=epochs.image, sample=epochs.sample, corrupt=corrupt)


@dataclass(frozen=True, slots=True, eq=False)
class _Epochs:
    """The functions of an augmented data set; worker processes pickle them."""

    dataset: Dataset
    augmentation: Augmentation

    def image(self, place: int) -> Image.Image:
        epoch, index = divmod(place, len(self.dataset))
        return self.augmentation(self.dataset.image(index), epoch, index)

    def sample(self, place: int) -> str:
        return self.dataset.sample(place % len(self.dataset))

    def corrupt(self, place: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self.dataset.corrupt is not None
        return self.dataset.corrupt(place % len(self.dataset), pixels)


@dataclass(frozen=True, slots=True)
class Part:
    """A process's part of a batch: `values` [n, ...] and `indices`, int64 [n], without unreadable images."""

    values: Tensor
    indices: Indices


class Images(Protocol):
    """A source of training images (or of their features)."""

    @property
    def bad(self) -> Mapping[int, str]:
        """Why each image that was found to be unreadable is left out, by index."""

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """Yield the images of each of `batches`, in order, with values on the CPU."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Images or features in memory: `values` [N, ...], without those in `bad`; every epoch is the same."""

    values: Tensor
    bad: Mapping[int, str] = field(default_factory=dict)

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """See `Images`."""
        for batch in batches:
            indices = batch[~np.isin(batch, list(self.bad))] if self.bad else batch
            yield Part(self.values[torch.from_numpy(indices)], indices)


@dataclass(slots=True)
class Decoded:
    """Images that are decoded and augmented anew in every epoch.

    Attributes:
        dataset: the images.
        preprocess: resizes and crops images that augmentation did not bring to the model's size.
        augmentation: the random changes.
        workers: number of decoding processes; 0 decodes in the main process.
        max_bad: number of unreadable images to tolerate; they are left out.
        bad: why each unreadable image cannot be read, by index.
    """

    dataset: Dataset
    preprocess: Preprocess
    augmentation: Augmentation
    workers: int = 0
    max_bad: int = 0
    bad: dict[int, str] = field(default_factory=dict)

    def parts(self, epoch: int, batches: Sequence[Indices]) -> Generator[Part, None, None]:
        """See `Images`. Raises SuiteError if too many images cannot be read."""
        dataset, count = augmented(self.dataset, self.augmentation), len(self.dataset)
        largest = max(map(len, batches), default=1)
        places = [epoch * count + indices for indices in batches]
        hold = max(2, ceil(4 * self.workers * CHUNK / max(1, largest)))
        with closing(decoded(dataset, self.preprocess, places, largest, workers=self.workers, hold=hold)) as stream:
            for batch, indices in zip(stream, batches, strict=True):
                bad = {place % count: reason for place, reason in batch.bad}
                self.bad |= bad
                require_few(self.dataset, self.bad, self.max_bad)
                good = np.flatnonzero(~np.isin(indices, list(bad)))
                yield Part(torch.from_numpy(batch.pixels[good]), indices[good])


def cached(source: Decoded) -> Images:
    """Decode the images once and keep them in memory, if they are not augmented and fit in `MEMORY_LIMIT`."""
    height, width = source.preprocess.size
    count = len(source.dataset)
    if source.augmentation.kind != "none" or count * 3 * height * width > MEMORY_LIMIT:
        return source
    pixels = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    for part in source.parts(0, np.array_split(np.arange(count), ceil(count / 256))):
        pixels[torch.from_numpy(part.indices)] = part.values
    return InMemory(pixels, dict(source.bad))

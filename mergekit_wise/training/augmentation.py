"""Images changed at random before they are learned from, each by random numbers of its own.

Image i of epoch e is the same whichever process decodes it and whatever was decoded before it. Knows no model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.training.batch_order import seed_of

AREAS = {"crop": (0.9, 1.0), "crop-flip": (0.08, 1.0), "strong": (0.08, 1.0)}

Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done: `kind` is one of `AUGMENTATIONS`; `size` (height, width) and `interpolation` are the model's."""

    kind: str
    size: tuple[int, int]
    interpolation: str
    seed: int

    def __call__(self, image: Image.Image, epoch: int, index: int) -> Image.Image:
        """Image `index` as it is seen in `epoch`: of the model's size, unless `kind` is none."""
        change = _change(self)
        if change is None:
            return image
        # torchvision draws from torch's global generator, which others may use.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, epoch, index))
            return change(image)


def augmented(dataset: Dataset, augmentation: Augmentation) -> Dataset:
    """The data set over all epochs: image ``epoch * N + i`` is image i as it is seen in that epoch."""
    seen = _Seen(dataset, augmentation)
    return replace(
        dataset,
        image=seen.image,
        sample=seen.sample,
        corrupt=None if dataset.corrupt is None else seen.corrupt,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
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


@cache
def _change(augmentation: Augmentation) -> Change | None:
    if augmentation.kind == "none":
        return None
    from torchvision import transforms

    mode = transforms.InterpolationMode("bilinear" if augmentation.interpolation == "bilinear" else "bicubic")
    steps = [transforms.RandomResizedCrop(augmentation.size, AREAS[augmentation.kind], interpolation=mode)]
    if augmentation.kind in ("crop-flip", "strong"):
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.kind == "strong":
        steps.append(transforms.RandAugment(num_ops=2, magnitude=9))
    change: Change = transforms.Compose(steps)
    return change

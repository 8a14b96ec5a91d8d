"""A data set of noise and a small model for the tests in this folder, and a plain loop to compare with."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError
from mergekit_wise.models.transform import Preprocess

PREPROCESS = Preprocess(size=(8, 8))
CLASSES = ("a", "b", "c", "d", "e", "f", "g")


@dataclass(frozen=True)
class Noise:
    """Images 11 x 9 of noise, seeded by their number; some cannot be read."""

    broken: frozenset[int] = frozenset()

    def image(self, index):
        if index in self.broken:
            raise SuiteError(f"{self.sample(index)}: broken.")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (9, 11, 3), np.uint8))

    def sample(self, index):
        return f"images/{index}.jpg"


def noise(count=53, broken=()):
    source = Noise(frozenset(broken))
    labels = np.random.default_rng(0).integers(0, len(CLASSES), count)
    return Dataset("noise", "Noise", CLASSES, labels, source.image, sample=source.sample)


def linear(outputs=7):
    """Logits of images [B, 3, 8, 8]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, outputs)).eval()


def setters(module, count):
    """Variants of `linear`, and their weights."""
    weights = [torch.randn(module[1].weight.shape, generator=torch.Generator().manual_seed(i)) for i in range(count)]
    return [lambda w=w: module[1].weight.data.copy_(w) for w in weights], weights


@torch.no_grad()
def looped(module, dataset, indices=None):
    """Logits [N, C], one image at a time, straight from its pixels."""
    rows = range(len(dataset)) if indices is None else indices
    inputs = [PREPROCESS.normalise(PREPROCESS.pixels(dataset.image(i))) for i in rows]
    return torch.stack([module(x[None])[0] for x in inputs])


def renamed(dataset, **changes):
    """The data set with other attributes."""
    return replace(dataset, **changes)

"""Every image is decoded once and visits every variant of a model. Knows no file and no alpha.

A variant is a function that sets the weights in place. Setting them for each batch would cost more than a small model's
forward pass, so a group of batches is decoded, then visits one variant after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from mergekit_wise.progress import Progress, silent
from mergekit_wise.suites.dataset import Dataset

GROUP = 256 << 20
"""Bytes of decoded images that are held at once."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Top-1 counts."""

    correct: int
    total: int


@torch.inference_mode()
def count_correct(
    module: nn.Module,
    variants: Sequence[Callable[[], None]],
    dataset: Dataset,
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int = 128,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Tally]:
    """Top-1 counts of every variant of `module`, whose outputs are logits [B, C].

    Batches have one shape, the last one padded, so that no image is computed by another kernel than the rest; ties go
    to the lower index.
    """
    correct = [0] * len(variants)
    total = len(dataset) * len(variants)
    done = 0
    for group in _groups(dataset, transform, batch_size):
        for index, set_weights in enumerate(variants):
            set_weights()
            for images, labels in group:
                predicted = module(images.to(device)).argmax(dim=-1)[: len(labels)].cpu()
                correct[index] += int((predicted == labels).sum())
                done += len(labels)
                progress(dataset.title, done, total, "images")
    return [Tally(count, len(dataset)) for count in correct]


Batch = tuple[Tensor, Tensor]


def _groups(dataset: Dataset, transform: Callable[[Image.Image], Tensor], batch_size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for start in range(0, len(dataset), batch_size):
        group.append(_batch(dataset, transform, start, batch_size))
        if sum(images.nbytes for images, _ in group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def _batch(dataset: Dataset, transform: Callable[[Image.Image], Tensor], start: int, batch_size: int) -> Batch:
    stop = min(start + batch_size, len(dataset))
    images = torch.stack([transform(dataset.image(index)) for index in range(start, stop)])
    padding = images.new_zeros(batch_size - len(images), *images.shape[1:])
    return torch.cat([images, padding]), torch.from_numpy(dataset.labels[start:stop])

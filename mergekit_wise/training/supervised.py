"""Cross-entropy with the labels, of images or of their features (the paper, section 3).

Gets a module that gives logits. Knows no files, no terminal, and no text tower.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.training.images import Part
from mergekit_wise.training.objective import Tally
from mergekit_wise.training.runtime import Runtime, accumulating


@dataclass(slots=True)
class Supervised:
    """What a classifier is fine-tuned with.

    Attributes:
        module: what `prepare` makes of a batch -> logits [B, C].
        prepare: stored values on the device -> what the module takes.
        labels: int64 [N], on the CPU.
        computing: where and how.
        smoothing: the share of a label that is spread over all classes.
        mixup: both parameters of the beta distribution that pairs of images are mixed by (Zhang et al., arXiv
            1710.09412); 0 mixes none.
    """

    module: nn.Module
    prepare: Callable[[Tensor], Tensor]
    labels: Tensor
    computing: Runtime
    smoothing: float = 0.0
    mixup: float = 0.0

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images`; random numbers come from `seed`."""
        share = self._share(seed)
        labels, partners = self.labels[torch.from_numpy(part.indices)], _partners(len(part.indices))
        tally = Tally.none(self.computing.device)
        slices = self.computing.rows(len(part.indices))
        if not slices:
            self._take_part(part)
        for rows in slices:
            with accumulating(self.module, last=rows is slices[-1]):
                own = self.computing.send(labels[rows])
                values = self._values(part, rows, partners[rows], share)
                with self.computing.autocast():
                    logits = self.module(values)
                logits = logits.float()
                loss = self._loss(logits, own)
                if share is not None:
                    other = self.computing.send(labels[partners[rows]])
                    loss = share * loss + (1 - share) * self._loss(logits, other)
                count = rows.stop - rows.start
                self.computing.backward(loss * (count / images))
                tally = tally.plus(loss * count, (logits.argmax(dim=1) == own).sum(), count)
        return tally

    def after_step(self) -> None:
        """Nothing is left to do."""

    def _take_part(self, part: Part) -> None:
        """A process that has no image of a batch must still exchange gradients, of zero."""
        values = self.prepare(self.computing.send(part.values.new_zeros(1, *part.values.shape[1:])))
        self.computing.backward(0 * self.module(values).sum())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)

    def _share(self, seed: int) -> float | None:
        """What an image keeps of itself when it is mixed: one number a step."""
        return float(np.random.default_rng(seed).beta(self.mixup, self.mixup)) if self.mixup else None

    def _values(self, part: Part, rows: slice, partners: Tensor, share: float | None) -> Tensor:
        values = self.prepare(self.computing.send(part.values[rows]))
        if share is None:
            return values
        return share * values + (1 - share) * self.prepare(self.computing.send(part.values[partners]))


def _partners(count: int) -> Tensor:
    """With whom each image is mixed: neighbours in a random order are random pairs. An odd one stays alone."""
    return (torch.arange(count) ^ 1).clamp(max=max(count - 1, 0))

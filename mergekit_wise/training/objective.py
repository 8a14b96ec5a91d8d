"""What is learned at a step, whatever it is: it adds up gradients, and tallies how well it went. Knows no optimiser."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mergekit_wise.training.images import Part


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over images, as scalars on the device: `loss`, `correct`; and how many images these are."""

    loss: Tensor
    correct: Tensor
    images: int

    @classmethod
    def none(cls, device: torch.device) -> "Tally":
        """Of no images."""
        return cls(torch.zeros((), device=device), torch.zeros((), device=device), 0)

    def plus(self, loss: Tensor, correct: Tensor, images: int) -> "Tally":
        """With more of them."""
        return Tally(self.loss + loss.detach(), self.correct + correct, self.images + images)


class Objective(Protocol):
    """Something to learn."""

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images`; random numbers come from `seed`."""

    def after_step(self) -> None:
        """What must hold of the weights after each step, beyond what the optimiser did."""

"""What training minimises: cross-entropy with the labels, or the contrastive or sigmoid loss of images and captions.

An objective adds up the gradients of one step. It gets modules and tensors; it knows no optimizer, no files and no
terminal.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.training.images import Indices, Part
from mergekit_wise.training.runtime import Runtime, accumulating

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's upper bound of the logit scale (a logarithm), which keeps training stable."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums of `loss` and of `correct` answers (scalars on the device) over `images` images."""

    loss: Tensor
    correct: Tensor
    images: int

    @classmethod
    def none(cls, device: torch.device) -> "Tally":
        """Return the tally of no images."""
        return cls(torch.zeros((), device=device), torch.zeros((), device=device), 0)

    def plus(self, loss: Tensor, correct: Tensor, images: int) -> "Tally":
        """Return the tally with more images added."""
        return Tally(self.loss + loss.detach(), self.correct + correct, self.images + images)


class Objective(Protocol):
    """A loss that is minimised."""

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images` images; random numbers come from `seed`."""

    def after_step(self) -> None:
        """Enforce constraints on the weights after the optimizer's step."""


@dataclass(slots=True)
class Supervised:
    """Cross-entropy with the labels, of images or of their features (the paper, section 3).

    Attributes:
        module: maps the output of `preprocess` to logits [B, C].
        preprocess: maps stored values on the device to the module's input.
        labels: int64 [N], on the CPU.
        runtime: device, precision and processes.
        smoothing: label smoothing, the share of a label that is spread over all classes.
        mixup: both parameters of the beta distribution from which mixup draws (Zhang et al., arXiv 1710.09412);
            0 turns mixup off.
    """

    module: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    labels: Tensor
    runtime: Runtime
    smoothing: float = 0.0
    mixup: float = 0.0

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images` images; random numbers come from `seed`."""
        share = self._share(seed)
        labels, partners = self.labels[torch.from_numpy(part.indices)], _partners(len(part.indices))
        tally = Tally.none(self.runtime.device)
        slices = self.runtime.rows(len(part.indices))
        if not slices:
            self._exchange_zeros(part)
        for rows in slices:
            with accumulating(self.module, last=rows is slices[-1]):
                own = self.runtime.send(labels[rows])
                values = self._values(part, rows, partners[rows], share)
                with self.runtime.autocast():
                    logits = self.module(values)
                logits = logits.float()
                loss = self._loss(logits, own)
                if share is not None:
                    other = self.runtime.send(labels[partners[rows]])
                    loss = share * loss + (1 - share) * self._loss(logits, other)
                count = rows.stop - rows.start
                self.runtime.backward(loss * (count / images))
                tally = tally.plus(loss * count, (logits.argmax(dim=1) == own).sum(), count)
        return tally

    def after_step(self) -> None:
        """Do nothing: there are no constraints."""

    def _exchange_zeros(self, part: Part) -> None:
        """Exchange gradients of zero with the other processes, because this one has no image of the batch."""
        values = self.preprocess(self.runtime.send(part.values.new_zeros(1, *part.values.shape[1:])))
        self.runtime.backward(0 * self.module(values).sum())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)

    def _share(self, seed: int) -> float | None:
        """Draw the weight of an image in mixup: one number per step."""
        return float(np.random.default_rng(seed).beta(self.mixup, self.mixup)) if self.mixup else None

    def _values(self, part: Part, rows: slice, partners: Tensor, share: float | None) -> Tensor:
        values = self.preprocess(self.runtime.send(part.values[rows]))
        if share is None:
            return values
        return share * values + (1 - share) * self.preprocess(self.runtime.send(part.values[partners]))


def _partners(count: int) -> Tensor:
    """Return mixup's partner of each image, int64 [count]: its neighbor in random order; an odd last one is its own."""
    return (torch.arange(count) ^ 1).clamp(max=max(count - 1, 0))


@torch.no_grad()
def cap_logit_scale(logit_scale: Tensor) -> None:
    """Clamp the logit scale (a logarithm) to CLIP's range, in place."""
    logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def contrastive_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor) -> Tensor:
    """Return the symmetric cross-entropy of a batch (CLIP, arXiv 2103.00020, figure 3).

    Rows i of the features are a pair; all rows have length 1.
    """
    logits_BB = scale * images_BD @ texts_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (functional.cross_entropy(logits_BB, own_B) + functional.cross_entropy(logits_BB.T, own_B)) / 2


def sigmoid_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return the sigmoid loss of a batch (SigLIP, arXiv 2303.15343, algorithm 1): each image with each text by itself.

    Rows i of the features are a pair, and all others are not; all rows have length 1. The sum over all pairs is divided
    by the number of images.
    """
    logits_BB = scale * images_BD @ texts_BD.T + bias
    signs_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device) - 1
    return -functional.logsigmoid(signs_BB * logits_BB).sum() / len(logits_BB)


@dataclass(slots=True)
class Contrastive:
    """The contrastive loss of images and texts: captions, or prompts with the names of classes.

    Source: FLYP (fine-tune like you pretrain), arXiv 2212.00638. As in pre-training, each text is the answer to its own
    image alone, also if another image of the batch has the same. The loss depends on all pairs of a batch, also where
    micro-batches or several processes compute them. So all features are computed first, without a graph if there are
    several micro-batches; then the loss and its gradients with respect to the features; then, one micro-batch after the
    other, the graph and the gradients of the weights (Gao et al., arXiv 2101.06983).

    Attributes:
        module: maps images and tokens to the features of both, [B, D] with rows of length 1, and to the further
            arguments of `loss`, which are scalars: the logit scale's exp, and for the sigmoid loss the bias.
        logit_scale: the logit scale (a logarithm) to clamp after each step; None if it is not clamped or not trained.
        preprocess: maps stored pixels on the device to the module's input.
        texts: maps the numbers of images, int64 [n], and the step's seed to numbers that are equal for texts that say
            the same, int64 [n], and to the tokens of a text for each image, int64 [n, L]; both on the CPU.
        runtime: device, precision and processes.
        loss: maps the features of both and the scalars to the loss: `contrastive_loss` or `sigmoid_loss`.
    """

    module: nn.Module
    logit_scale: Tensor | None
    preprocess: Callable[[Tensor], Tensor]
    texts: Callable[[Indices, int], tuple[Tensor, Tensor]]
    runtime: Runtime
    loss: Callable[..., Tensor] = contrastive_loss

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images`; `seed` chooses each image's text."""
        slices = self.runtime.rows(len(part.indices))
        # Processes exchange something in a pass with a graph, too: before the features in all of them, or after these.
        whole = all(count == 1 for count in self.runtime.ranks.gather(len(slices)))
        if not slices:
            return self._without_images(part, seed)
        labels, tokens = self.texts(part.indices, seed)
        outputs = [self._features(part, tokens, rows, seed, keep=whole) for rows in slices]
        own = [torch.cat([output[side].detach() for output in outputs]).requires_grad_() for side in (0, 1)]
        scalars = [scalar.detach().requires_grad_() for scalar in outputs[0][2:]]
        everyone = [self._gathered(features) for features in own]
        loss = self.loss(everyone[0], everyone[1], *scalars)
        gradients = torch.autograd.grad(self.runtime.scaler.scale(loss), [*own, *scalars])
        for rows in slices:
            last = rows is slices[-1]
            with accumulating(self.module, last):
                output = outputs[0] if whole else self._features(part, tokens, rows, seed, keep=True)
                self._backpropagate(output, gradients, rows, last)
        correct = self._correct(own[0], everyone[1], labels)
        return Tally.none(self.runtime.device).plus(loss * len(labels), correct, len(labels))

    def _without_images(self, part: Part, seed: int) -> Tally:
        """Take part in a step of which this process has no readable image: in all that the processes exchange.

        Its own features are those of no image, so they have no gradient; that of the scalars is everyone's.
        """
        runtime, (_, tokens) = self.runtime, self.texts(np.zeros(1, np.int64), seed)
        blank = Part(part.values.new_zeros(1, *part.values.shape[1:]), part.indices)
        output = self._features(blank, tokens, slice(0, 1), seed, keep=False)
        everyone = [self._gathered(output[side][:0]) for side in (0, 1)]
        scalars = [scalar.detach().requires_grad_() for scalar in output[2:]]
        of_scalars = [torch.zeros_like(scalar) for scalar in scalars]
        if len(everyone[0]):  # the loss of no image is not a number
            loss = runtime.scaler.scale(self.loss(*everyone, *scalars))
            of_scalars = list(torch.autograd.grad(loss, scalars))
        output = self._features(blank, tokens, slice(0, 1), seed, keep=True)
        gradients = (torch.zeros_like(output[0]), torch.zeros_like(output[1]), *of_scalars)
        self._backpropagate(output, gradients, slice(0, 1), last=True)
        runtime.ranks.gather_rows(torch.zeros(0, dtype=torch.int64, device=runtime.device))  # as `_correct` does
        return Tally.none(runtime.device)

    def after_step(self) -> None:
        """Clamp the logit scale, unless the model's is not clamped."""
        if self.logit_scale is not None:
            cap_logit_scale(self.logit_scale)

    def _features(self, part: Part, tokens: Tensor, rows: slice, seed: int, keep: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(seed + rows.start)  # so that both passes have the same dropout
        # Without a graph, the processes have no gradients to exchange.
        module = self.module if keep else getattr(self.module, "module", self.module)
        with torch.set_grad_enabled(keep), self.runtime.autocast():
            outputs = module(self.preprocess(self.runtime.send(part.values[rows])), self.runtime.send(tokens[rows]))
        return tuple(output.float() for output in outputs)

    def _gathered(self, features: Tensor) -> Tensor:
        """Return the features of all processes; those of the others carry no gradient."""
        ranks = self.runtime.ranks
        if ranks.size == 1:
            return features
        parts = ranks.gather_rows(features.detach())
        parts[ranks.rank] = features
        return torch.cat(parts)

    def _backpropagate(
        self, outputs: tuple[Tensor, ...], gradients: tuple[Tensor, ...], rows: slice, last: bool
    ) -> None:
        """Add up the weights' gradients from the gradients of the features and of the scalars."""
        images, texts, *scalars = gradients
        size = self.runtime.ranks.size
        # DistributedDataParallel averages over processes. Every process has the whole gradient of the scalars, but
        # only its own rows of the other gradients, so these are multiplied by the number of processes.
        own = [size * images[rows], size * texts[rows]]
        own += [scalar if last else torch.zeros_like(scalar) for scalar in scalars]
        trained = [(output, one) for output, one in zip(outputs, own, strict=True) if output.requires_grad]
        torch.autograd.backward([output for output, _ in trained], [one for _, one in trained])

    @torch.no_grad()
    def _correct(self, images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Count the images whose nearest text says the same as their own: names their class, or is their caption."""
        ranks = self.runtime.ranks
        named = torch.cat(ranks.gather_rows(labels.to(images.device))).cpu()
        return (named[(images @ texts.T).argmax(dim=1).cpu()] == labels).sum().to(images.device)

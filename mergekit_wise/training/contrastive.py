"""Contrastive learning: images and captions of a batch find each other.

Sources: CLIP, arXiv 2103.00020; FLYP (fine-tune like you pretrain), arXiv 2212.00638.

Gets a module with two towers, and tensors. Knows no open_clip, no files, no terminal, and not what the images show.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.images import Part
from mergekit_wise.training.objective import Tally
from mergekit_wise.training.optimizer import Optimization, OptimizerStep
from mergekit_wise.training.runtime import Runtime, accumulating

MAX_LOGIT_SCALE = math.log(100)
"""Where CLIP stops the temperature, lest training become unstable."""


def train_contrastive(
    model: Any,
    images: Tensor,
    tokens: Tensor,
    prepare: Callable[[Tensor], Tensor],
    settings: Optimization,
    generator: torch.Generator,
    progress: Progress = silent,
    what: str = "pre-training",
) -> None:
    """Train both towers of ``model`` in place; rows i of ``images`` [N, ...] and ``tokens`` [N, L] belong together.

    ``model`` offers ``encode_image``, ``encode_text`` and ``logit_scale``, as open_clip's models do; ``prepare``
    turns a batch of stored images into what the image tower takes, so that stored ones may be small. A batch that
    is not full is left out: the loss depends on how many captions there are to confuse an image with.
    """
    steps = len(images) // settings.batch_size
    stepper = OptimizerStep(model.named_parameters(), settings, settings.epochs * steps)
    for _ in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in torch.split(order, settings.batch_size)[:steps]:
            progress(what, stepper.taken, stepper.total, "steps")
            stepper.step(_batch_loss(model, prepare(images[batch]), tokens[batch]))
            stop_scale(model.logit_scale)
    progress(what, stepper.total, stepper.total, "steps")


@torch.no_grad()
def stop_scale(logit_scale: Tensor) -> None:
    """Keep the temperature, a logarithm, where CLIP keeps it."""
    logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def contrastive_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor) -> Tensor:
    """The symmetric cross-entropy over a batch's products (CLIP, figure 3); features of length 1, rows i are pairs."""
    logits_BB = scale * images_BD @ texts_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (functional.cross_entropy(logits_BB, own_B) + functional.cross_entropy(logits_BB.T, own_B)) / 2


@dataclass(slots=True)
class Captioned:
    """Fine-tuning as a CLIP was pre-trained: a caption of an image is a prompt with its class's name (FLYP).

    The loss of a batch depends on all of its pairs, however many are computed at once and in however many processes:
    features come first, without a graph where they don't fit; then the loss; then the graph, part by part, takes the
    gradients of the features (Gao et al., arXiv 2101.06983).

    Attributes:
        module: images and tokens -> features of length 1 of both, [B, D], and the factor of their products.
        logit_scale: the logarithm of that factor, a parameter of the module.
        prepare: stored pixels on the device -> what the module takes.
        labels: int64 [N], on the CPU.
        captions: tokens of every class and prompt, int64 [C, T, L], on the CPU.
        computing: where and how.
    """

    module: nn.Module
    logit_scale: Tensor
    prepare: Callable[[Tensor], Tensor]
    labels: Tensor
    captions: Tensor
    computing: Runtime

    def backward(self, part: Part, images: int, seed: int) -> Tally:
        """Add up the gradients of a process's part of a batch of `images`; `seed` chooses each image's prompt."""
        labels, tokens = self._texts(part, seed)
        slices = self.computing.rows(len(labels))
        outputs = [self._features(part, tokens, rows, seed, keep=len(slices) == 1) for rows in slices]
        own = [torch.cat([output[side].detach() for output in outputs]).requires_grad_() for side in (0, 1)]
        scale = outputs[0][2].detach().requires_grad_()
        everyone = [self._gathered(features) for features in own]
        loss = contrastive_loss(everyone[0], everyone[1], scale)
        gradients = torch.autograd.grad(self.computing.scaler.scale(loss), [*own, scale])
        for rows in slices:
            last = rows is slices[-1]
            with accumulating(self.module, last):
                output = outputs[0] if len(slices) == 1 else self._features(part, tokens, rows, seed, keep=True)
                self._spread(output, gradients, rows, last)
        found = self._found(own[0], everyone[1], labels)
        return Tally.none(self.computing.device).plus(loss * len(labels), found, len(labels))

    def after_step(self) -> None:
        """The temperature stays where CLIP keeps it."""
        stop_scale(self.logit_scale)

    def _texts(self, part: Part, seed: int) -> tuple[Tensor, Tensor]:
        """Labels and tokens. The prompt of an image depends on nothing but the step and the image."""
        chosen = torch.randint(
            self.captions.shape[1], (len(self.labels),), generator=torch.Generator().manual_seed(seed)
        )
        indices = torch.from_numpy(part.indices)
        labels = self.labels[indices]
        return labels, self.captions[labels, chosen[indices]]

    def _features(
        self, part: Part, tokens: Tensor, rows: slice, seed: int, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(seed + rows.start)  # what dropout leaves out is the same both times
        # Without a graph there is nothing that processes would exchange.
        module = self.module if keep else getattr(self.module, "module", self.module)
        with torch.set_grad_enabled(keep), self.computing.autocast():
            images, texts, scale = module(
                self.prepare(self.computing.send(part.values[rows])), self.computing.send(tokens[rows])
            )
        return images.float(), texts.float(), scale.float()

    def _gathered(self, features: Tensor) -> Tensor:
        """Those of all processes; through those of the others flows no gradient."""
        ranks = self.computing.ranks
        if ranks.size == 1:
            return features
        parts = [torch.from_numpy(array).to(features.device) for array in ranks.gather(features.detach().cpu().numpy())]
        parts[ranks.rank] = features
        return torch.cat(parts)

    def _spread(
        self, output: tuple[Tensor, Tensor, Tensor], gradients: tuple[Tensor, ...], rows: slice, last: bool
    ) -> None:
        """Hand the gradients of the features down to the weights."""
        images, texts, scale = gradients
        size = self.computing.ranks.size
        # Every process has the whole gradient of the temperature, and only its own part of the others, whose mean is
        # what the weights get.
        below = [size * images[rows], size * texts[rows], scale if last else torch.zeros_like(scale)]
        torch.autograd.backward(list(output), below)

    @torch.no_grad()
    def _found(self, images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """How many images' nearest caption names their class."""
        ranks = self.computing.ranks
        named = torch.cat([torch.as_tensor(part) for part in ranks.gather(labels)])
        return (named[(images @ texts.T).argmax(dim=1).cpu()] == labels).sum().to(images.device)


def _batch_loss(model: Any, images: Tensor, tokens: Tensor) -> Tensor:
    images_BD = functional.normalize(model.encode_image(images), dim=-1)
    texts_BD = functional.normalize(model.encode_text(tokens), dim=-1)
    return contrastive_loss(images_BD, texts_BD, model.logit_scale.exp())

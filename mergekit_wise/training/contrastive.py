"""Contrastive pre-training: images and captions of a batch find each other (CLIP, arXiv 2103.00020).

Gets a module with two towers, and tensors. Knows no open_clip, no files, no terminal, and not what the images show.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.optimizer import Optimization, Stepper

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
    stepper = Stepper(model.parameters(), settings, settings.epochs * steps)
    for _ in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in torch.split(order, settings.batch_size)[:steps]:
            progress(what, stepper.taken, stepper.total, "steps")
            stepper.step(_batch_loss(model, prepare(images[batch]), tokens[batch]))
            with torch.no_grad():
                model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    progress(what, stepper.total, stepper.total, "steps")


def contrastive_loss(images_BD: Tensor, texts_BD: Tensor, scale: Tensor) -> Tensor:
    """The symmetric cross-entropy over a batch's products (CLIP, figure 3); features of length 1, rows i are pairs."""
    logits_BB = scale * images_BD @ texts_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (functional.cross_entropy(logits_BB, own_B) + functional.cross_entropy(logits_BB.T, own_B)) / 2


def _batch_loss(model: Any, images: Tensor, tokens: Tensor) -> Tensor:
    images_BD = functional.normalize(model.encode_image(images), dim=-1)
    texts_BD = functional.normalize(model.encode_text(tokens), dim=-1)
    return contrastive_loss(images_BD, texts_BD, model.logit_scale.exp())

"""Fine-tuning end to end: image tower and classification head follow the labels (the paper, section 3).

Gets a classifier and tensors. Knows no open_clip, no files, no terminal, and no text tower.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.optimizer import Optimization, Stepper


def finetune_end_to_end(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    prepare: Callable[[Tensor], Tensor],
    settings: Optimization,
    generator: torch.Generator,
    progress: Progress = silent,
) -> None:
    """Train ``classifier`` in place with cross-entropy on ``images`` [N, ...] and ``labels``, int64 [N].

    The module gives logits [B, C] of what ``prepare`` makes of a batch of images. Its mode is the caller's choice:
    in ``eval()`` batch norms keep their running statistics, and only their gains and biases are trained.
    """
    steps = -(-len(images) // settings.batch_size)
    stepper = Stepper(classifier.parameters(), settings, settings.epochs * steps)
    for _ in range(settings.epochs):
        for batch in torch.split(torch.randperm(len(images), generator=generator), settings.batch_size):
            progress("fine-tuning", stepper.taken, stepper.total, "steps")
            logits_BC = classifier(prepare(images[batch]))
            stepper.step(functional.cross_entropy(logits_BC, labels[batch]))
    progress("fine-tuning", stepper.total, stepper.total, "steps")

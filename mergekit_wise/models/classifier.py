"""An image tower with a linear head, the model whose accuracy is measured. Knows no file and no architecture."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.errors import ModelError


class Classifier(nn.Module):
    """Logits [B, C] of images [B, 3, H, W]: the normalised image features times the head (the paper, section 2).

    Its tensors are named as in checkpoints: ``visual.*`` and ``classification_head.{weight,bias}``, with a text tower
    also ``text.*``, ``logit_scale`` and, if it was trained with the sigmoid loss, ``logit_bias``.

    Args:
        visual: the image tower, images [B, 3, H, W] -> features [B, D].
        features: D.
        classes: C of the head; None for a model that has no head before `use_head` is called.
        text: a text tower, tokens int64 [B, L] -> features [B, D].
        normalize: whether features are normalised before the head is applied; some heads were trained without.
    """

    def __init__(
        self,
        visual: nn.Module,
        features: int,
        classes: int | None,
        text: nn.Module | None = None,
        *,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.visual = visual
        self.classification_head = None if classes is None else nn.Linear(features, classes)
        self.text = text
        self.logit_scale = None if text is None else nn.Parameter(torch.zeros(()))
        self.logit_bias: nn.Parameter | None = None

    @property
    def classes(self) -> int | None:
        """The number of the head's classes; None without a head."""
        return None if self.classification_head is None else self.classification_head.out_features

    def encode(self, images: Tensor) -> Tensor:
        """The image features [B, D] that the head is applied to, of length 1 if `normalize` is set."""
        features: Tensor = self.visual(images)
        return functional.normalize(features, dim=-1) if self.normalize else features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]. Raises ModelError without a head."""
        if self.classification_head is None:
            raise ModelError("The model has no head yet. Make one from class names, or give the file of a head.")
        logits: Tensor = self.classification_head(self.encode(images))
        return logits

    @torch.no_grad()
    def use_head(self, weight: Tensor) -> None:
        """Install a head with this `weight` [C, D] and a bias of zero."""
        like = next(self.visual.parameters())
        head = nn.Linear(weight.shape[1], weight.shape[0], device=like.device, dtype=like.dtype)
        head.weight.copy_(weight)
        head.bias.zero_()
        self.classification_head = head.train(self.training)

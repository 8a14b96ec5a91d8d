"""An image tower with a linear head: what every accuracy is measured with. Knows no file and no architecture."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.errors import ModelError


class Classifier(nn.Module):
    """Logits [B, C] of images [B, 3, H, W]: the normalised image features times the head (the paper, section 2).

    Its tensors have the names that checkpoints give them: ``visual.*`` and ``classification_head.{weight,bias}``; with
    a text tower also ``text.*`` and ``logit_scale``. Without `classes` it has no head until `use_head` gives it one.
    Without `normalize` the head is applied to features as they are, as some heads were trained to be.
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

    @property
    def classes(self) -> int | None:
        """How many the head has; None as long as there is none."""
        return None if self.classification_head is None else self.classification_head.out_features

    def encode(self, images: Tensor) -> Tensor:
        """Image features [B, D] that the head is applied to, of length 1 unless it was trained on others."""
        features: Tensor = self.visual(images)
        return functional.normalize(features, dim=-1) if self.normalize else features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]. Raises ModelError if there is no head yet."""
        if self.classification_head is None:
            raise ModelError("The model has no head yet: make one from class names, or give a file of one.")
        logits: Tensor = self.classification_head(self.encode(images))
        return logits

    @torch.no_grad()
    def use_head(self, weight: Tensor) -> None:
        """Take `weight` [C, D] for the head, with a bias of zero."""
        like = next(self.visual.parameters())
        head = nn.Linear(weight.shape[1], weight.shape[0], device=like.device, dtype=like.dtype)
        head.weight.copy_(weight)
        head.bias.zero_()
        self.classification_head = head.train(self.training)

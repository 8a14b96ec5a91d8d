"""A user's own module that gives logits, as a model's module. Knows no file and no architecture."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mergekit_wise.errors import ModelError


class CalledModule(nn.Module):
    """Logits [B, C] of images [B, ...] by a module of the user's.

    Args:
        inner: maps images to logits, float [B, C], or to a mapping with "logits".
        classes: C.
    """

    def __init__(self, inner: nn.Module, classes: int) -> None:
        super().__init__()
        self.inner = inner
        self.classes = classes
        self.dtype = next((each.dtype for each in inner.parameters() if each.is_floating_point()), torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        return logits_of(self.inner(images.to(self.dtype)), len(images))


def logits_of(found: Any, images: int) -> Tensor:
    """What a module returned for so many images as logits, float [B, C]. Raises ModelError if it is something else."""
    if isinstance(found, Mapping) and "logits" in found:
        found = found["logits"]
    if isinstance(found, Tensor) and found.ndim == 2 and len(found) == images and found.is_floating_point():
        return found
    what = f"a {type(found).__name__}"
    if isinstance(found, Tensor):
        what = f"a tensor of {str(found.dtype).removeprefix('torch.')} and shape {list(found.shape)}"
    raise ModelError(f"The module is called for logits, float [{images}, C] for {images} images, and returned {what}.")

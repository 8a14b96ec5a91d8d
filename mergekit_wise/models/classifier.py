"""An image tower with a linear head: what every accuracy is measured with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import guess_architecture, named_config, stored_config

HEAD = "classification_head."
TOWER = "visual."

Transform = Callable[[Image.Image], Tensor]


class Classifier(nn.Module):
    """Logits [B, C] of images [B, 3, H, W]: the normalised image features times the head (the paper, section 2).

    Its tensors have the names that checkpoints give them: ``visual.*`` and ``classification_head.{weight,bias}``.
    """

    def __init__(self, visual: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.visual = visual
        self.classification_head = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 [B, C]."""
        features = functional.normalize(self.visual(images), dim=-1)
        logits: Tensor = self.classification_head(features)
        return logits


def build_classifier(checkpoint: Checkpoint, model: str | None = None) -> tuple[Classifier, Transform]:
    """A module for the checkpoint, in evaluation mode with weights yet to be set, and the transform of its images.

    The architecture is `model`, an open_clip name, or what the checkpoint's metadata says. Raises ModelError where
    neither tells, or where there is no head.
    """
    from mergekit_wise.models.clip import create_clip
    from mergekit_wise.models.transform import create_transform

    config = named_config(model) if model else stored_config(checkpoint)
    if config is None:
        raise ModelError(_unknown(checkpoint))
    if f"{HEAD}weight" not in checkpoint.tensors:
        raise ModelError(
            f"{checkpoint.path}: has no classification head ({HEAD}weight). "
            "Evaluate a checkpoint that was saved with one."
        )
    classes, features = checkpoint.info(f"{HEAD}weight").shape
    classifier = Classifier(create_clip(config["model_cfg"]).visual, features, classes)
    _require_fit(checkpoint, classifier)
    return classifier.eval(), create_transform(config["preprocess_cfg"])


def weight_names(checkpoint: Checkpoint) -> list[str]:
    """Names of the tensors that a classifier needs: those of the image tower and of the head."""
    return [name for name in checkpoint.tensors if name.startswith((TOWER, HEAD))]


@torch.no_grad()
def set_weights(classifier: Classifier, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic]]]) -> None:
    """Copy weights into the module in place, whatever their dtypes; exact where the module's dtype is wider."""
    places: dict[str, Any] = classifier.state_dict()
    for name, (info, carrier) in tensors.items():
        raw = torch.from_numpy(np.array(carrier).view(np.uint8))
        places[name].copy_(raw.view(getattr(torch, info.dtype.torch)).view(info.shape))


def _require_fit(checkpoint: Checkpoint, classifier: Classifier) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}
    found = {name: checkpoint.info(name).shape for name in weight_names(checkpoint)}
    if wanted != found:
        wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        raise ModelError(
            f"{checkpoint.path}: does not fit the architecture in {len(wrong)} tensors, the first being {wrong[0]} "
            f"(expected {wanted.get(wrong[0])}, found {found.get(wrong[0])}). Name another one with --model."
        )


def _unknown(checkpoint: Checkpoint) -> str:
    guess = guess_architecture(checkpoint)
    names = ", ".join(guess.names) or "none of open_clip's"
    return (
        f"{checkpoint.path}: does not say which architecture it holds; what fits ({guess.reason}): {names}. "
        "Name it with --model."
    )

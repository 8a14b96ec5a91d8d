"""timm's image classifiers, which have a head of their own and no text tower. Knows nothing of CLIP."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import OPEN_CLIP_JSON
from mergekit_wise.errors import ModelError
from mergekit_wise.models.declared_config import folder_of, side_json
from mergekit_wise.models.places import Place
from mergekit_wise.models.towers import unfilled

PREFIX = "timm:"
INNER = "model."
RESIZING = {"center": "shortest", "squash": "squash", "border": "longest"}
"""timm's names for what open_clip does before the image is cropped."""


class TimmClassifier(nn.Module):
    """Logits [B, C] of images [B, 3, H, W], as the timm model inside gives them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.model.num_classes)

    def encode(self, images: Tensor) -> Tensor:
        """What the model's last layer is applied to, [B, D]."""
        features: Tensor = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.model(images)
        return logits


def timm_told(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]] | None:
    """Name and ``pretrained_cfg`` in the config.json of a folder from the hub; None if it is not timm's.

    Nor if it is a CLIP's, whose image tower alone lies beside it under timm's names.
    """
    folder = folder_of(checkpoint)
    if folder is None or (folder / OPEN_CLIP_JSON).exists():
        return None
    config = side_json(folder, "config.json")
    name, settings = config.get("architecture"), config.get("pretrained_cfg")
    return (name, settings) if isinstance(name, str) and isinstance(settings, dict) else None


def timm_asked(model: str) -> tuple[str, dict[str, Any]] | None:
    """The name in ``timm:NAME``; None if the user asked for something else."""
    return (model.removeprefix(PREFIX), {}) if model.startswith(PREFIX) else None


def open_timm(
    checkpoint: Checkpoint, name: str, settings: Mapping[str, Any]
) -> tuple[TimmClassifier, dict[str, Any], dict[str, Place]]:
    """The module, unfilled, with as many classes as the checkpoint's head; its preprocessing; where tensors go.

    Raises ModelError if timm has no such model, or the checkpoint no head of it.
    """
    model = _create(name, settings)
    weight = f"{_first(model.pretrained_cfg.get('classifier'))}.weight"
    if weight not in checkpoint.tensors:
        raise ModelError(
            f"{checkpoint.path}: has no classifier {weight!r}, which timm's {name} has. Give one with a head."
        )
    classes = checkpoint.info(weight).shape[0]
    if classes != model.num_classes:
        with unfilled():
            model.reset_classifier(classes)
    places = {tensor: Place(INNER + tensor) for tensor in checkpoint.tensors}
    return TimmClassifier(model), _preprocess(model), places


def _create(name: str, settings: Mapping[str, Any]) -> Any:
    if not timm.is_model(name.split(".")[0]) or ":" in name:  # "hf-hub:..." would be fetched
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(name, timm.list_models(), 3)) or "see timm.list_models()"
        raise ModelError(f"--model {PREFIX}{name}: timm has no such model. Close to it: {close}.")
    known = {
        key: value
        for key, value in settings.items()
        if key in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "num_classes", "classifier")
    }
    try:
        with unfilled():
            return timm.create_model(name, pretrained=False, pretrained_cfg_overlay=known)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"timm cannot build {name}: {str(error).strip().splitlines()[0]}") from error


def _first(classifier: Any) -> Any:
    """Distilled models have two heads."""
    return classifier[0] if isinstance(classifier, (tuple, list)) else classifier


def _preprocess(model: Any) -> dict[str, Any]:
    data = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
    return {
        "size": list(data["input_size"][1:]),
        "mode": "RGB",
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "interpolation": data["interpolation"],
        "resize_mode": RESIZING[data["crop_mode"]],
        "fill_color": 0,
        "crop_pct": data["crop_pct"],
    }

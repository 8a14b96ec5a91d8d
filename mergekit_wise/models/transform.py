"""The transform that turns an image into a model's input: open_clip's own, so that accuracies are comparable."""

from collections.abc import Callable, Mapping
from typing import Any

from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor


def create_transform(preprocess_cfg: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    """PIL image -> float32 [3, H, W], from what open_clip_config.json calls ``preprocess_cfg``."""
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    return transform

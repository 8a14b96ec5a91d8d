"""Preprocessing of images for a model, by open_clip's own steps, so that accuracies are comparable.

Images are resized and cropped on the CPU, in integers, and normalised on the model's device. Knows no model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import floor
from typing import Any

import numpy as np
import torch
from open_clip.transform import CenterCropOrPad, PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor

from mergekit_wise.errors import ModelError


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The steps of ``open_clip.image_transform_v2(cfg, is_train=False)``, in two halves; byte for byte the same.

    Attributes:
        size: height and width of the model's images, in pixels.
        mean, std: of each channel, for pixels between 0 and 1.
        interpolation, resize_mode, fill_color: as in open_clip's ``preprocess_cfg``.
        crop_pct: `size` as a share of the size that images are resized to, as in timm; 1 for open_clip's models.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    crop_pct: float = 1.0

    @classmethod
    def of(cls, preprocess_cfg: Mapping[str, Any]) -> "Preprocess":
        """From the ``preprocess_cfg`` of an open_clip_config.json; missing entries have open_clip's defaults.

        It may also hold timm's ``crop_pct``. Raises ModelError if open_clip would refuse it.
        """
        try:
            cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), dict(preprocess_cfg)))
            size = (cfg.size, cfg.size) if isinstance(cfg.size, int) else (int(cfg.size[0]), int(cfg.size[-1]))
            mean, std = (tuple(map(float, np.broadcast_to(value, 3))) for value in (cfg.mean, cfg.std))
            crop_pct = float(preprocess_cfg.get("crop_pct") or 1)
            preprocess = cls(size, mean, std, cfg.interpolation, cfg.resize_mode, cfg.fill_color, crop_pct)
            _resizing(preprocess)
        except (AssertionError, TypeError, ValueError, LookupError, OverflowError) as error:
            raise ModelError(f"open_clip has no such preprocessing: {dict(preprocess_cfg)}.") from error
        return preprocess

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized and cropped: uint8 [3, H, W]. Raises ValueError for an image too narrow to be resized."""
        return torch.from_numpy(np.array(_resizing(self)(image))).permute(2, 0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] on any device -> float32 of the same shape, there."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
            for values in (self.mean, self.std)
        )
        # A tensor, not a number: CUDA would multiply by a number's reciprocal, which rounds differently from the CPU.
        full = torch.tensor(255.0, device=pixels.device)
        return pixels.float().div_(full).sub_(mean).div_(std)


@cache
def _resizing(preprocess: Preprocess) -> Callable[[Image.Image], Image.Image]:
    """open_clip's steps without the last two, which convert the image to a tensor and normalise it."""
    from torchvision.transforms import CenterCrop, Compose, Normalize, ToTensor

    cfg = PreprocessCfg(
        size=tuple(floor(side / preprocess.crop_pct) for side in preprocess.size),
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
        fill_color=preprocess.fill_color,
    )
    resize, *crops, convert, to_tensor, normalize = image_transform_v2(cfg, is_train=False).transforms
    assert isinstance(to_tensor, ToTensor)
    assert isinstance(normalize, Normalize)
    if cfg.size != preprocess.size:
        padded = preprocess.resize_mode == "longest"
        crops = [CenterCropOrPad(preprocess.size, preprocess.fill_color) if padded else CenterCrop(preprocess.size)]
    resizing: Callable[[Image.Image], Image.Image] = Compose([resize, *crops, convert])
    return resizing


def create_transform(preprocess_cfg: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    """PIL image -> float32 [3, H, W], from the ``preprocess_cfg`` of an open_clip_config.json."""
    preprocess = Preprocess.of(preprocess_cfg)
    return lambda image: preprocess.normalise(preprocess.pixels(image))

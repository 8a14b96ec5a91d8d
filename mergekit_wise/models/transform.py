"""Preprocessing of images for a model, by the steps of the library that the model is from, so that numbers compare.

Images are resized and cropped on the CPU, in integers, and normalised on the model's device. Knows no model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import floor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor

from mergekit_wise.errors import ModelError
from mergekit_wise.models.resampling import Resampling

MAX_RESIZED = 8192
"""Pixels along a side that a configuration may resize images to."""

Resizing = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes a model's input: one resize, one crop in the centre, and a linear map of the values.

    With one `library` or another the steps differ by a pixel, so each library's own are taken, byte for byte: those of
    ``open_clip.image_transform_v2(cfg, is_train=False)``, of ``timm.data.create_transform``, or of transformers' image
    processors that use Pillow.

    Attributes:
        size: height and width of the model's images, in pixels.
        mean, std: of each channel, for pixels between 0 and 1.
        interpolation: a filter of Pillow's in lower case. open_clip has bilinear and bicubic; "random" is bicubic.
        resize_mode: what is resized to the size: the "shortest" side, the "longest" one, or both ("squash"); "none" for
            images that are only cropped.
        fill_color: where an image is padded, of all channels or of each.
        crop_pct: `size` as a share of the size that images are resized to, as in timm; 1 for others.
        resize: height and width that images are resized to; None for `size` divided by `crop_pct`.
        library: "open_clip", "timm" or "transformers".
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int | tuple[int, ...] = 0
    crop_pct: float = 1.0
    resize: tuple[int, int] | None = None
    library: str = "open_clip"

    @classmethod
    def of(cls, preprocess_cfg: Mapping[str, Any]) -> "Preprocess":
        """From the ``preprocess_cfg`` of an open_clip_config.json; missing entries have open_clip's defaults.

        It may also hold ``library`` and ``resize``, and timm's ``crop_pct``, which makes it timm's. Other entries that
        open_clip does not know are ignored, as open_clip does. Raises ModelError for what the library would refuse.
        """
        try:
            cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), dict(preprocess_cfg)))
            mean, std = (tuple(map(float, np.broadcast_to(value, 3))) for value in (cfg.mean, cfg.std))
            fill: Any = cfg.fill_color
            resize = preprocess_cfg.get("resize")
            preprocess = cls(
                size=_pair(cfg.size),
                mean=mean,
                std=std,
                interpolation=cfg.interpolation,
                resize_mode=cfg.resize_mode,
                fill_color=fill if isinstance(fill, int) else tuple(map(int, fill)),
                crop_pct=float(preprocess_cfg.get("crop_pct") or 1),
                resize=None if resize is None else _pair(resize),
                library=preprocess_cfg.get("library") or ("timm" if "crop_pct" in preprocess_cfg else "open_clip"),
            )
            if not all(0 < side <= MAX_RESIZED for side in (*preprocess.size, *preprocess.resized)):
                raise ValueError(f"images would be resized to {preprocess.resized}")
            _resizing(preprocess)
        except (AssertionError, TypeError, ValueError, LookupError, OverflowError, ZeroDivisionError) as error:
            library = preprocess_cfg.get("library") or "open_clip"
            raise ModelError(f"{library} has no such preprocessing: {dict(preprocess_cfg)}.") from error
        return preprocess

    @property
    def dtype(self) -> type[np.uint8]:
        """Of the values that `pixels` gives."""
        return np.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the model's images."""
        return (3, *self.size)

    @property
    def action(self) -> str:
        """What is done to images, for messages."""
        return "resized"

    def takes_as_stored(self, image: Image.Image) -> bool:
        """Whether an image that is stored cropped has the size of the model's, so that it stays as it is."""
        return image.size == self.size[::-1]

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width that images are resized to, before they are cropped to `size`."""
        return self.resize or (floor(self.size[0] / self.crop_pct), floor(self.size[1] / self.crop_pct))

    def without_margin(self) -> "Preprocess":
        """The same for images that are cropped already: they are resized to `size`, and no margin is cut off."""
        return replace(self, crop_pct=1.0, resize=None)

    def pixels(self, image: Image.Image) -> Tensor:
        """Resized and cropped: uint8 [3, H, W]. Raises ValueError for an image too narrow to be resized."""
        found = np.empty(self.shape, np.uint8)
        self.write(image, found)
        return torch.from_numpy(found)

    def write(self, image: Image.Image, out: NDArray[np.uint8]) -> None:
        """As `pixels`, into memory of the shape [3, H, W] without gaps."""
        resampling = _resampling(self, image.size) if image.mode == "RGB" else None
        if resampling is None or not resampling.write(image, out):
            out[...] = np.asarray(_resizing(self)(image)).transpose(2, 0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] on any device -> float32 of the same shape, there."""
        full, mean, std = _constants(self.mean, self.std, pixels.device)
        return pixels.float().div_(full).sub_(mean).div_(std)


@cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """255, the means and the deviations on a device, to which they are sent once: it would be waited for each time."""
    with torch.inference_mode(False):  # usable in training, too
        # 255 as a tensor: CUDA would multiply by a number's reciprocal, which rounds differently from the CPU.
        full = torch.tensor(255.0, device=device)
        means, deviations = (
            torch.tensor(each, dtype=torch.float32, device=device).view(3, 1, 1) for each in (mean, std)
        )
        return full, means, deviations


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


@cache
def _resizing(preprocess: Preprocess) -> Resizing:
    """The steps of the library without the last two, which convert the image to a tensor and normalise it."""
    return {"open_clip": _open_clip, "timm": _timm, "transformers": _transformers}[preprocess.library](preprocess)


@lru_cache(4096)
def _resampling(preprocess: Preprocess, size: tuple[int, int]) -> Resampling | None:
    """The same steps for RGB images of this width and height; None if they do more than to resize and to crop."""
    return Resampling.of(_resizing(preprocess), size)


def _open_clip(preprocess: Preprocess) -> Resizing:
    if preprocess.resized != preprocess.size:
        raise ValueError("open_clip resizes images to the model's size")
    cfg = PreprocessCfg(
        size=preprocess.size,
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
        fill_color=preprocess.fill_color,
    )
    return _without_normalising(image_transform_v2(cfg, is_train=False).transforms)


def _timm(preprocess: Preprocess) -> Resizing:
    from timm.data.transforms_factory import create_transform

    modes = {"shortest": "center", "longest": "border", "squash": "squash"}
    transform = create_transform(  # its filling colour is the mean, rounded
        (3, *preprocess.size),
        crop_pct=preprocess.crop_pct,
        crop_mode=modes[preprocess.resize_mode],
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
    )
    steps = _without_normalising(transform.transforms)
    return lambda image: steps(_rgb(image))


def _without_normalising(steps: list[Any]) -> Resizing:
    from torchvision.transforms import Compose, Normalize, ToTensor

    *resizing, to_tensor, normalize = steps
    assert isinstance(to_tensor, ToTensor)
    assert isinstance(normalize, Normalize)
    composed: Resizing = Compose(resizing)
    return composed


def _transformers(preprocess: Preprocess) -> Resizing:
    """Sizes and offsets are rounded down, and a crop that is larger than the image adds black."""
    names = {Image.Resampling(number).name.lower(): Image.Resampling(number) for number in range(6)}
    resample, mode = names[preprocess.interpolation], preprocess.resize_mode
    crop_height, crop_width = preprocess.size
    if mode not in ("shortest", "longest", "squash", "none"):
        raise ValueError(mode)

    def resizing(image: Image.Image) -> Image.Image:
        image = _rgb(image)
        if mode != "none":
            image = image.resize(_resized(image.width, image.height, mode, preprocess.resized), resample)
        left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
        return image.crop((left, top, left + crop_width, top + crop_height))

    return resizing


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(width: int, height: int, mode: str, target: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a resized image, in floating-point numbers as transformers computes them."""
    if mode == "squash":
        return target[1], target[0]
    if mode == "longest":
        scale = min(target[0] / height, target[1] / width)
        return int(width * scale), int(height * scale)
    short, long = target[0], int(target[0] * max(width, height) / min(width, height))
    return (short, long) if width <= height else (long, short)


def create_transform(preprocess_cfg: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    """PIL image -> float32 [3, H, W], from the ``preprocess_cfg`` of an open_clip_config.json."""
    preprocess = Preprocess.of(preprocess_cfg)
    return lambda image: preprocess.normalise(preprocess.pixels(image))

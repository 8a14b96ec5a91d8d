"""Synthetic corruptions: corrupted copies of any data set, made while it is read.

They follow the descriptions and the strengths of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), with other random
numbers, libraries and textures. Images are corrupted after resizing and cropping, whereas those of ImageNet-C were
corrupted before, so the numbers cannot be compared with published ones; the data sets state this. Lengths in pixels
are those of ImageNet-C at 224 pixels and scale with the image.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.errors import SuiteError

Pixels = NDArray[np.uint8]
"""An image, uint8 [H, W, 3]."""

Floats = NDArray[np.float64]
"""An image, float64 [H, W, 3] in [0, 1]."""

CorruptionFunction = Callable[[Floats, int, np.random.Generator], Floats]
"""An image, its severity from 0 to 4, and its random numbers -> the corrupted image, which may exceed [0, 1]."""

SYNTHETIC = "synthetic"
"""The prefix in ``synthetic:NAME``."""

NOTE = "synthetic: not comparable with published ImageNet-C numbers"
SEVERITIES = (1, 2, 3, 4, 5)
_IMAGENET_C_SIDE = 224


@dataclass(frozen=True, slots=True)
class Corruption:
    """One corruption of `CORRUPTIONS` at one severity from 1 to 5. Raises SuiteError if there is no such corruption."""

    name: str
    severity: int

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS or self.severity not in SEVERITIES:
            raise SuiteError(
                f"There is no corruption {self.name!r} of severity {self.severity}. Known, with severities from 1 to "
                f"5: {', '.join(CORRUPTIONS)}."
            )

    def __call__(self, seed: int, pixels: Pixels) -> Pixels:
        """Corrupt an image, uint8 [H, W, 3]; `seed` is that of the image, for example its index.

        Each combination of image, corruption and severity has its own random numbers.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), self.severity])
        # Sums of floats depend on the memory layout, but the resulting bytes must not.
        image = np.ascontiguousarray(pixels) / 255
        return _bytes(CORRUPTIONS[self.name](image, self.severity - 1, rng))


def corrupted(dataset: Dataset, corruption: Corruption) -> Dataset:
    """`dataset` with `corruption` applied after resizing and cropping, seeded by the index of the image.

    Raises SuiteError if the data set is already corrupted.
    """
    if dataset.corrupt is not None:
        raise SuiteError(f"{dataset.title}: is already corrupted, and a second corruption is not supported.")
    name, severity = corruption.name, corruption.severity
    return replace(
        dataset,
        name=f"{dataset.name}-synthetic-{name}-{severity}",
        title=f"{dataset.title}, synthetic {name.replace('_', ' ')} {severity}",
        location=f"{dataset.location} ({NOTE})".strip(),
        corrupt=corruption,
        same_images=dataset.same_images or dataset.name,
    )


def synthetic_suite(suite: Suite) -> Suite:
    """A suite with every corruption at every severity of the reference of `suite`, or of its only data set.

    Raises SuiteError if `suite` has several data sets and no reference.
    """
    base = suite.reference or (suite.shifts[0] if len(suite.shifts) == 1 else None)
    if base is None:
        raise SuiteError(
            f"{SYNTHETIC}:{suite.name}: expected one data set to corrupt, found {len(suite.shifts)}. Name one of them: "
            f"{', '.join(dataset.name for dataset in suite.shifts)}."
        )
    base = replace(base, same_images=base.same_images or base.name)
    shifts = tuple(corrupted(base, Corruption(name, severity)) for name in CORRUPTIONS for severity in SEVERITIES)
    return Suite(f"{SYNTHETIC}:{suite.name}", base, shifts, suite.missing)


def gaussian_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Add Gaussian noise with the same standard deviation everywhere, as in low light."""
    return image + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[level], image.shape)


def shot_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Replace each value by a Poisson count of few photons."""
    photons = (60, 25, 12, 5, 3)[level]
    return rng.poisson(image * photons) / photons


def impulse_noise(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Set a share of the values to black or white (salt and pepper)."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    drawn = rng.random(image.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, image))


def defocus_blur(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Blur as if out of focus: every point becomes a disk."""
    return _convolved(image, _disk((3, 4, 6, 8, 10)[level] * _scale(image)))


def motion_blur(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Blur as a moving camera does: every point becomes a fading stroke at up to 45 degrees to the horizontal."""
    length, fading = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    return _convolved(image, _stroke(length * _scale(image), fading * _scale(image), rng.uniform(-45, 45)))


def zoom_blur(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Blur as a camera moving forward does: the mean of growing enlargements."""
    farthest, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[level]
    factors = np.arange(1 + step, farthest, step)
    picture = Image.fromarray(_bytes(image))
    total = image + sum(_enlarged(picture, float(factor)) for factor in factors)
    mean: Floats = total / (len(factors) + 1)
    return mean


def fog(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Add a light veil with clouds, made of noise whose amplitude falls with the frequency."""
    strength, steepness = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[level]
    brightest = float(image.max())
    veiled: Floats = (image + strength * _clouds(image.shape[:2], steepness, rng)[..., None]) * brightest
    return veiled / (brightest + strength)


def brightness(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Raise the largest of the three colours (the V of HSV) and keep hue and saturation."""
    value: Floats = image.max(axis=-1, keepdims=True)
    raised: Floats = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[level], 1)
    # Black has no hue and becomes grey.
    return np.where(value > 0, image * (raised / np.where(value > 0, value, 1)), raised)


def contrast(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Reduce the difference from the mean colour."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    flat: Floats = mean + (image - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level]
    return flat


def elastic_transform(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Stretch small regions: every pixel is read from a place nearby, with smoothly varying displacements."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    reach, smooth = ((2.0, 10.0), (2.4, 8.0), (2.7, 6.0), (3.0, 5.0), (3.4, 4.0))[level]
    height, width = image.shape[:2]
    moves = [gaussian_filter(rng.uniform(-1, 1, (height, width)), smooth * _scale(image), mode="reflect") for _ in "yx"]
    spread = max(float(np.std(moves)), 1e-12)
    grid = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    places = [axis + move * (reach * _scale(image) / spread) for axis, move in zip(grid, moves, strict=True)]
    channels = [map_coordinates(image[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return np.stack(channels, axis=-1)


def pixelate(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Reduce the resolution, so that each pixel becomes a block."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    height, width = image.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    picture = Image.fromarray(_bytes(image)).resize(small, Image.Resampling.BOX)
    return _floats(picture.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(image: Floats, level: int, rng: np.random.Generator) -> Floats:
    """Save as a JPEG of low quality."""
    stored = BytesIO()
    Image.fromarray(_bytes(image)).save(stored, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    return _floats(Image.open(stored))


CORRUPTIONS: Mapping[str, CorruptionFunction] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            gaussian_noise,
            shot_noise,
            impulse_noise,
            defocus_blur,
            motion_blur,
            zoom_blur,
            fog,
            brightness,
            contrast,
            elastic_transform,
            pixelate,
            jpeg_compression,
        )
    }
)
"""Corruptions by ImageNet-C's names; glass blur, snow and frost need its own code or pictures and are left out."""


def _bytes(image: Floats) -> Pixels:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _floats(picture: Image.Image) -> Floats:
    return np.asarray(picture.convert("RGB")) / 255


def _scale(image: Floats) -> float:
    return float(min(image.shape[:2])) / _IMAGENET_C_SIDE


def _convolved(image: Floats, kernel: NDArray[np.float64]) -> Floats:
    """Convolve each channel with a kernel of odd sides; the image is reflected at its edges."""
    from scipy.signal import fftconvolve

    rim = [(side // 2, side // 2) for side in kernel.shape]
    padded = np.pad(image, [*rim, (0, 0)], mode="symmetric")
    blurred: Floats = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


def _disk(radius: float) -> NDArray[np.float64]:
    """A disk with a soft edge and sum 1; pixels at the edge count in part."""
    reach = int(np.ceil(radius + 0.5))
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(ys, xs), 0, 1)
    result: NDArray[np.float64] = disk / disk.sum()
    return result


def _stroke(length: float, fading: float, degrees: float) -> NDArray[np.float64]:
    """A stroke that starts at the centre, with Gaussian falling weights and sum 1."""
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(0, length, 4 * reach)
    weights = np.exp(-((steps / fading) ** 2) / 2)
    across, down = steps * np.cos(np.deg2rad(degrees)), steps * np.sin(np.deg2rad(degrees))
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    for row in (0, 1):
        for column in (0, 1):
            # A point between pixels is shared by the four around it.
            share = (1 - np.abs(across - left - column)) * (1 - np.abs(down - top - row))
            np.add.at(kernel, (reach + top + row, reach + left + column), weights * share)
    result: NDArray[np.float64] = kernel / kernel.sum()
    return result


def _enlarged(picture: Image.Image, factor: float) -> Floats:
    width, height = picture.size
    across, down = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
    box = (across, down, width - across, height - down)
    return _floats(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _clouds(shape: tuple[int, int], steepness: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise float64 [H, W] from 0 to 1 whose amplitude at frequency f is f to the power of -`steepness`."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    waves = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    clouds = np.fft.irfft2(waves * frequency**-steepness, s=shape)
    clouds -= clouds.min()
    result: NDArray[np.float64] = clouds / max(float(clouds.max()), 1e-12)
    return result

"""The suite ``digits``: scikit-learn's handwritten digits, and shifts made of its test images.

Small enough for a demonstration without a download: 1797 real scans of 8 x 8 pixels and 17 grey levels, ink bright
on dark. Knows nothing of models or of how anything was trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mergekit_wise.datasets.dataset import Dataset, Entry, Suite
from mergekit_wise.datasets.glyphs import HELD_OUT_FACES, SIDE, Glyph, draw
from mergekit_wise.errors import SuiteError

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_PER_CLASS = 100
_EXPECTED = TEST_PER_CLASS * len(CLASSNAMES)
_SPLIT_SEED = 20220619

Pixels = NDArray[np.uint8]
"""Grey pixels of one image, uint8 [32, 32]."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the scans: ``pixels`` uint8 [N, 32, 32], ``labels`` int64 [N], ``rows`` as scikit-learn counts them."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


def open_digits() -> Suite:
    """The test part as the reference, 100 images a class, and seven shifts of the same size."""
    part = test_images()
    reference = _dataset("digits", "Reference", part.labels, _Scans(part.pixels, _unchanged).image)
    return Suite("digits", reference, _shifts(part))


def train_images() -> Part:
    """The scans to fine-tune on; none of them is in the suite."""
    return _split()[0]


def test_images() -> Part:
    """The scans that the suite's reference and its shifts are made of."""
    return _split()[1]


def _shifts(part: Part) -> tuple[Dataset, ...]:
    changes: tuple[tuple[str, str, Change], ...] = (
        ("inverted", "Inverted", _inverted),
        ("rotated", "Rotated", _rotated),
        ("blurred", "Blurred", _blurred),
        ("noisy", "Noisy", _noisy),
        ("faded", "Low contrast", _faded),
        ("small", "Small", _small),
    )
    made = tuple(
        _dataset(f"digits-{name}", title, part.labels, _Scans(part.pixels, change).image)
        for name, title, change in changes
    )
    return (*made, _dataset("digits-printed", "Printed", part.labels, _Pages(part.labels).image))


Change = Callable[[Pixels, np.random.Generator], Pixels]
"""One image and its own random numbers -> the shifted image."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scans:
    """The scans of a part, uint8 [N, 32, 32], each changed when it is asked for."""

    pixels: NDArray[np.uint8]
    change: Change

    def image(self, index: int) -> Image.Image:
        # The index alone seeds: image 7 is the same whichever images were asked for before it.
        return _rgb(self.change(self.pixels[index], np.random.default_rng(index)))


@dataclass(frozen=True, slots=True, eq=False)
class _Pages:
    """Printed digits of the `labels`, int64 [N], each drawn when it is asked for."""

    labels: NDArray[np.int64]

    def image(self, index: int) -> Image.Image:
        return _rgb(draw(_page_glyph(int(self.labels[index]), np.random.default_rng(index))))


def _dataset(name: str, title: str, labels: NDArray[np.int64], image: Callable[[int], Image.Image]) -> Dataset:
    return Dataset(name, title, CLASSNAMES, labels, image, expected=_EXPECTED, location="built in")


def _page_glyph(digit: int, rng: np.random.Generator) -> Glyph:
    """A digit as a page shows it: dark on light, nearly upright, in a font that no model was trained on."""
    return Glyph(
        digit,
        HELD_OUT_FACES[rng.integers(len(HELD_OUT_FACES))],
        height=rng.uniform(0.55, 0.8),
        angle=rng.uniform(-8, 8),
        across=rng.uniform(-0.06, 0.06),
        down=rng.uniform(-0.06, 0.06),
        ink=int(rng.integers(0, 60)),
        paper=int(rng.integers(200, 256)),
    )


def _unchanged(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return pixels


def _inverted(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return 255 - pixels


def _rotated(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    angle = rng.uniform(20, 35) * rng.choice([-1, 1])
    return np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC))


def _blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def _noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(np.rint(pixels + rng.normal(0, 60, pixels.shape)), 0, 255).astype(np.uint8)


def _faded(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    faded: Pixels = np.rint(100 + pixels * (60 / 255)).astype(np.uint8)
    return faded


def _small(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    side = 20
    page = Image.new("L", (SIDE, SIDE))
    left, top = rng.integers(0, SIDE - side + 1, 2)
    page.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (int(left), int(top)))
    return np.asarray(page)


def _rgb(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


@cache
def _split() -> tuple[Part, Part]:
    """Train and test: of each class, 100 scans drawn with a fixed seed are test, the rest (797 in all) train."""
    scans, labels = _scans()
    rng = np.random.default_rng(_SPLIT_SEED)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:TEST_PER_CLASS] for c in range(len(CLASSNAMES))]
    test = np.sort(np.concatenate(chosen))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return _part(scans, labels, train), _part(scans, labels, test)


def _part(scans: NDArray[np.float64], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Part:
    return Part(np.stack([_upscaled(scans[row]) for row in rows]), labels[rows], rows)


def _upscaled(scan: NDArray[np.float64]) -> Pixels:
    # The scans touch their border; a rim of one pixel keeps the ink inside when an image is turned or blurred.
    grey = np.pad(np.rint(scan * (255 / 16)).astype(np.uint8), 1)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's scans, float64 [1797, 8, 8] in 0..16, and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SuiteError("The suite 'digits' needs scikit-learn: pip install 'mergekit-wise[demo]'") from error
    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.int64)


def _find(name: str, root: Path) -> Dataset:
    return next(dataset for dataset in open_digits().datasets if dataset.name == name)


_TITLES = {
    "digits": "Reference",
    "digits-inverted": "Inverted",
    "digits-rotated": "Rotated",
    "digits-blurred": "Blurred",
    "digits-noisy": "Noisy",
    "digits-faded": "Low contrast",
    "digits-small": "Small",
    "digits-printed": "Printed",
}
ENTRIES = tuple(
    Entry(name, title, partial(_find, name), (), _EXPECTED, "pip install 'mergekit-wise[demo]'")
    for name, title in _TITLES.items()
)

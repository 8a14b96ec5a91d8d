"""The suite ``digits``: scikit-learn's handwritten digits, and shifts made from its test images.

It needs no download, so it serves the demo: 1797 scans of 8 x 8 pixels and 17 grey levels, with bright ink on a dark
ground. This module knows nothing of models or of training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mergekit_wise.datasets.dataset import Dataset, Entry, Suite
from mergekit_wise.datasets.glyphs import CLASSNAMES, HELD_OUT_FACES, SIDE, Glyph, draw
from mergekit_wise.errors import SuiteError

TEST_PER_CLASS = 100
_EXPECTED = TEST_PER_CLASS * len(CLASSNAMES)
_SPLIT_SEED = 20220619

Pixels = NDArray[np.uint8]
"""Grey pixels of one image, uint8 [32, 32]."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the scans.

    Attributes:
        pixels: uint8 [N, 32, 32].
        labels: int64 [N].
        rows: the indices in scikit-learn's data set, int64 [N].
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


def open_digits() -> Suite:
    """Open the suite: the test images as the reference, 100 per class, and seven shifts of the same size."""
    reference, *shifts = (_open(name) for name in _TITLES)
    return Suite("digits", reference, tuple(shifts))


def train_images() -> Part:
    """The scans for fine-tuning; none of them is in the suite."""
    return _split()[0]


def test_images() -> Part:
    """The scans from which the suite's reference and shifts are made."""
    return _split()[1]


def _open(name: str) -> Dataset:
    part = test_images()
    is_printed = name == "digits-printed"
    return Dataset(
        name,
        _TITLES[name],
        CLASSNAMES,
        part.labels,
        partial(_printed, part.labels) if is_printed else partial(_shifted, part.pixels, _SHIFTS[name]),
        expected=_EXPECTED,
        location="built in",
        same_images="" if is_printed else "digits",
    )


def _shifted(
    pixels: NDArray[np.uint8], shift: Callable[[Pixels, np.random.Generator], Pixels], index: int
) -> Image.Image:
    """Image `index` of scans, uint8 [N, 32, 32], under a shift. Its index alone seeds its random numbers."""
    return _rgb(shift(pixels[index], np.random.default_rng(index)))


def _printed(labels: NDArray[np.int64], index: int) -> Image.Image:
    """A printed digit with label `index` of `labels`, int64 [N]. Its index alone seeds its random numbers."""
    return _rgb(draw(_printed_glyph(int(labels[index]), np.random.default_rng(index))))


def _printed_glyph(digit: int, rng: np.random.Generator) -> Glyph:
    """A digit as on a page: dark on light, nearly upright, in a font that pre-training never draws."""
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
    canvas = Image.new("L", (SIDE, SIDE))
    left, top = rng.integers(0, SIDE - side + 1, 2)
    canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (int(left), int(top)))
    return np.asarray(canvas)


def _rgb(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


@cache
def _split() -> tuple[Part, Part]:
    """Training and test images: 100 scans per class, drawn with a fixed seed, are test images; the other 797 train."""
    scans, labels = _scans()
    rng = np.random.default_rng(_SPLIT_SEED)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:TEST_PER_CLASS] for c in range(len(CLASSNAMES))]
    test = np.sort(np.concatenate(chosen))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return _part(scans, labels, train), _part(scans, labels, test)


def _part(scans: NDArray[np.float64], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Part:
    return Part(np.stack([_upscaled(scans[row]) for row in rows]), labels[rows], rows)


def _upscaled(scan: NDArray[np.float64]) -> Pixels:
    # The ink touches the border; one more pixel on each side keeps it inside when an image is rotated or blurred.
    grey = np.pad(np.rint(scan * (255 / 16)).astype(np.uint8), 1)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's scans, float64 [1797, 8, 8] in 0..16, and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SuiteError("The suite 'digits' needs scikit-learn. Run: pip install 'mergekit-wise[demo]'") from error
    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.int64)


_TITLES: Mapping[str, str] = {
    "digits": "Reference",
    "digits-inverted": "Inverted",
    "digits-rotated": "Rotated",
    "digits-blurred": "Blurred",
    "digits-noisy": "Noisy",
    "digits-faded": "Low contrast",
    "digits-small": "Small",
    "digits-printed": "Printed",
}
_SHIFTS: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "digits": _unchanged,
    "digits-inverted": _inverted,
    "digits-rotated": _rotated,
    "digits-blurred": _blurred,
    "digits-noisy": _noisy,
    "digits-faded": _faded,
    "digits-small": _small,
}


def _find(name: str, root: Path) -> Dataset:
    return _open(name)


def _find_train(root: Path) -> Dataset:
    part = train_images()
    make = partial(_shifted, part.pixels, _unchanged)
    return Dataset("digits-train", "Digits, training images", CLASSNAMES, part.labels, make, location="built in")


ENTRIES = tuple(
    Entry(
        name,
        title,
        partial(_find, name),
        (),
        _EXPECTED,
        "pip install 'mergekit-wise[demo]'",
        _find_train if name == "digits" else None,
    )
    for name, title in _TITLES.items()
)

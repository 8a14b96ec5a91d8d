"""Printed digits for the demo, drawn with the fonts that matplotlib ships, and captions for them.

The demo's model is pre-trained on these pairs of images and captions. This module knows nothing of models or of the
handwritten digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mergekit_wise.errors import SuiteError
from mergekit_wise.progress import Progress, silent

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32
"""Width and height of an image in pixels."""

_CANVAS = 64
_EM = 44


@dataclass(frozen=True, slots=True)
class Face:
    """A font file, and how its digits are described in captions."""

    file: str
    kind: str
    bold: bool = False
    slanted: bool = False


TRAINING_FACES = (
    Face("DejaVuSans.ttf", "sans-serif"),
    Face("DejaVuSans-Bold.ttf", "sans-serif", bold=True),
    Face("DejaVuSans-Oblique.ttf", "sans-serif", slanted=True),
    Face("DejaVuSans-BoldOblique.ttf", "sans-serif", bold=True, slanted=True),
    Face("DejaVuSerif.ttf", "serif"),
    Face("DejaVuSerif-Bold.ttf", "serif", bold=True),
    Face("DejaVuSerif-Italic.ttf", "serif", slanted=True),
    Face("DejaVuSerif-BoldItalic.ttf", "serif", bold=True, slanted=True),
    Face("cmr10.ttf", "serif"),
    Face("cmb10.ttf", "serif", bold=True),
    Face("cmti10.ttf", "serif", slanted=True),
    Face("cmss10.ttf", "sans-serif"),
)
HELD_OUT_FACES = (
    Face("DejaVuSansMono.ttf", "typewriter"),
    Face("DejaVuSansMono-Bold.ttf", "typewriter", bold=True),
    Face("STIXGeneral.ttf", "serif"),
    Face("STIXGeneralBol.ttf", "serif", bold=True),
    Face("STIXGeneralItalic.ttf", "serif", slanted=True),
    Face("cmtt10.ttf", "typewriter"),
)


@dataclass(frozen=True, slots=True)
class Glyph:
    """All parameters of the drawing of one printed digit.

    Attributes:
        height: as a share of the image.
        stretch: a factor on the width.
        angle: in degrees, counter-clockwise.
        slant: the tangent of the angle by which the digit leans.
        across, down: the shift to the right and to the bottom, as shares of the image.
        stroke: the width that is added to each stroke, in pixels of the canvas.
        ink, paper: grey levels from 0 to 255.
        blur: the radius in pixels.
        coarse: the side of the grid of pixels to which the digit is reduced before it is scaled up again.
        noise: the standard deviation in grey levels.
        bend: the displacements of nine control points as shares of the digit, [3, 3, 2] flattened.
    """

    digit: int
    face: Face
    height: float = 0.8
    stretch: float = 1.0
    angle: float = 0.0
    slant: float = 0.0
    across: float = 0.0
    down: float = 0.0
    stroke: int = 0
    ink: int = 0
    paper: int = 255
    blur: float = 0.0
    coarse: int = SIDE
    noise: float = 0.0
    bend: tuple[float, ...] = (0.0,) * 18


def draw(glyph: Glyph, noise_seed: int = 0) -> NDArray[np.uint8]:
    """Draw a glyph: its grey pixels, uint8 [32, 32]."""
    mask = _mask(glyph.face.file, glyph.digit, glyph.stroke)
    placed = mask.transform((SIDE, SIDE), Image.Transform.MESH, _mesh(glyph, mask.size), Image.Resampling.BILINEAR)
    if glyph.coarse != SIDE:
        grid = (glyph.coarse, glyph.coarse)
        placed = placed.resize(grid, Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if glyph.blur:
        placed = placed.filter(ImageFilter.GaussianBlur(glyph.blur))
    cover = np.asarray(placed, dtype=np.float32) / 255
    grey = glyph.paper + (glyph.ink - glyph.paper) * cover
    if glyph.noise:
        grey = grey + np.random.default_rng(noise_seed).normal(0, glyph.noise, grey.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


@cache
def _mask(file: str, digit: int, stroke: int) -> Image.Image:
    """The digit in white on black, cropped to its ink and a border of one pixel for smooth edges."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    font = ImageFont.truetype(_fonts_folder() / file, _EM)
    ImageDraw.Draw(canvas).text((16, 8), str(digit), fill=255, font=font, stroke_width=stroke)
    box = canvas.getbbox()
    if box is None:
        raise SuiteError(f"{file} has no glyph for the digit {digit}. Run: pip install --force-reinstall matplotlib")
    return canvas.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))


def _mesh(glyph: Glyph, source: tuple[int, int]) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
    """The sources of four patches of the image in a mask of size `source`, in the format of PIL's MESH."""
    points = _source_points(glyph, source)
    half = SIDE // 2
    patches = []
    for row in (0, 1):
        for column in (0, 1):
            box = (column * half, row * half, (column + 1) * half, (row + 1) * half)
            around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            patches.append((box, tuple(float(v) for at in around for v in points[at])))
    return patches


def _source_points(glyph: Glyph, source: tuple[int, int]) -> NDArray[np.float64]:
    """Coordinates in the mask of the image's 3 x 3 control points, float64 [row, column, (x, y)]."""
    ys, xs = np.meshgrid([-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5], indexing="ij")
    xs, ys = xs - glyph.across, ys - glyph.down
    turn = np.deg2rad(glyph.angle)
    xs, ys = np.cos(turn) * xs - np.sin(turn) * ys, np.sin(turn) * xs + np.cos(turn) * ys
    xs = xs + glyph.slant * ys
    bend = np.asarray(glyph.bend).reshape(3, 3, 2)
    width = glyph.height * glyph.stretch * source[0] / source[1]
    shares = np.stack([xs / width, ys / glyph.height], axis=-1) + bend
    points: NDArray[np.float64] = (shares + 0.5) * np.asarray(source, dtype=np.float64)
    return points


@cache
def _fonts_folder() -> Path:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise SuiteError("Printed digits need the fonts of matplotlib. Run: pip install matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


GlyphSampler = Callable[[np.random.Generator], Glyph]
"""Random numbers -> a random glyph."""

_FRAMES = ("a photo of the {}", "a picture of a {}", "the {}", "a {}", "an image of the {}", "one {}")
_NOUNS = ("number {}", "digit {}", "{}", "numeral {}")


def render_pairs(
    sample_glyph: GlyphSampler, count: int, detail: float, rng: np.random.Generator, progress: Progress = silent
) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw `count` random glyphs: grey images, uint8 [count, 32, 32], and their captions.

    `detail` is the probability that a caption mentions an attribute such as "bold".
    """
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    captions = []
    for index in range(count):
        if index % 500 == 0:
            progress("drawing digits", index, count, "images")
        glyph = sample_glyph(rng)
        images[index] = draw(glyph, noise_seed=index)
        captions.append(caption(glyph, detail, rng))
    progress("drawing digits", count, count, "images")
    return images, captions


def plain_glyph(rng: np.random.Generator) -> Glyph:
    """A random clean, nearly upright digit in the middle of the image."""
    ink, paper = _ink_and_paper(rng, contrast=120)
    return Glyph(
        int(rng.integers(10)),
        TRAINING_FACES[rng.integers(len(TRAINING_FACES))],
        height=rng.uniform(0.65, 0.85),
        angle=rng.uniform(-8, 8),
        across=rng.uniform(-0.04, 0.04),
        down=rng.uniform(-0.04, 0.04),
        stroke=int(rng.integers(0, 3)),
        ink=ink,
        paper=paper,
    )


def varied_glyph(rng: np.random.Generator) -> Glyph:
    """A random digit of any size, position, grey level, shape and quality that a person can still read."""
    ink, paper = _ink_and_paper(rng, contrast=50)
    height = rng.uniform(0.35, 0.95)
    room = max(0.05, (1 - height) / 2)
    return Glyph(
        int(rng.integers(10)),
        TRAINING_FACES[rng.integers(len(TRAINING_FACES))],
        height=height,
        stretch=rng.uniform(0.7, 1.3),
        angle=rng.uniform(-30, 30),
        slant=rng.uniform(-0.3, 0.3),
        across=rng.uniform(-room, room),
        down=rng.uniform(-room, room),
        stroke=int(rng.integers(0, 3)),
        ink=ink,
        paper=paper,
        blur=rng.uniform(0.3, 2.0) if rng.random() < 0.4 else 0.0,
        coarse=int(rng.integers(9, 17)) if rng.random() < 0.4 else SIDE,
        noise=rng.uniform(5, 50) if rng.random() < 0.4 else 0.0,
        bend=tuple(rng.normal(0, 0.08, 18).tolist()),
    )


def caption(glyph: Glyph, detail: float, rng: np.random.Generator) -> str:
    """A caption that names the digit as a word or numeral, and each of its attributes with probability `detail`."""
    name = CLASSNAMES[glyph.digit] if rng.random() < 0.7 else str(glyph.digit)
    noun = _NOUNS[rng.integers(len(_NOUNS))].format(name)
    # At most two attributes, so that the digit stays within the few tokens of the text encoder.
    attributes = [attribute for attribute in _attributes(glyph) if rng.random() < detail][:2]
    contrast = f", {_contrast(glyph)}" if rng.random() < detail else ""
    return _FRAMES[rng.integers(len(_FRAMES))].format(" ".join([*attributes, noun])) + contrast


def _ink_and_paper(rng: np.random.Generator, contrast: int) -> tuple[int, int]:
    """Two random grey levels that differ by at least `contrast`."""
    while True:
        ink, paper = (int(grey) for grey in rng.integers(0, 256, 2))
        if abs(ink - paper) >= contrast:
            return ink, paper


def _attributes(glyph: Glyph) -> list[str]:
    attributes = {
        "big": glyph.height > 0.8,
        "small": glyph.height < 0.55,
        "bold": glyph.face.bold or glyph.stroke == 2,
        "italic": glyph.face.slanted,
        glyph.face.kind: True,
        "blurry": glyph.blur > 0.8,
        "coarse": glyph.coarse < SIDE,
        "grainy": glyph.noise > 15,
        "faint": abs(glyph.ink - glyph.paper) < 90,
        "tilted": abs(glyph.angle) > 15,
    }
    return [attribute for attribute, holds in attributes.items() if holds]


def _contrast(glyph: Glyph) -> str:
    return "light on dark" if glyph.ink > glyph.paper else "dark on light"

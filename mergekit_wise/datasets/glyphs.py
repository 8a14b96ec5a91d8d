"""Printed digits, drawn with the fonts that matplotlib ships.

Knows what a digit looks like in print; knows nothing of captions, models or the handwritten scans.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mergekit_wise.errors import SuiteError

SIDE = 32
_CANVAS = 64
_EM = 44


@dataclass(frozen=True, slots=True)
class Face:
    """One font file, and the words that a person would describe its digits with."""

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
    """Everything that decides the pixels of one printed digit.

    ``height`` is a share of the image and ``stretch`` a factor on the width that goes with it; ``angle`` is in
    degrees, counter-clockwise; ``slant`` is the tangent of the lean; ``across`` and ``down`` move the digit by shares
    of the image; ``stroke`` thickens it, in pixels of the canvas; ``ink`` and ``paper`` are grey levels in 0..255;
    ``blur`` is a radius in pixels, ``coarse`` the side of the grid of pixels that it was scanned on; ``bend`` is how
    far nine control points are displaced as shares of the digit, [3, 3, 2] flattened; ``noise`` is a standard
    deviation in grey levels.
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
    """The glyph's grey pixels, uint8 [32, 32]."""
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
    """The digit in white on black, cropped to its ink and a rim of one pixel for smooth edges."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    font = ImageFont.truetype(_fonts_folder() / file, _EM)
    ImageDraw.Draw(canvas).text((16, 8), str(digit), fill=255, font=font, stroke_width=stroke)
    box = canvas.getbbox()
    if box is None:
        raise SuiteError(f"{file} draws nothing for the digit {digit}; reinstall matplotlib, which ships it.")
    return canvas.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))


def _mesh(glyph: Glyph, source: tuple[int, int]) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
    """Where four patches of the image come from in a mask of size ``source``, as PIL's MESH wants it."""
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
    """The mask's coordinates under the image's 3 x 3 control points, [row, column, (x, y)]."""
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
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise SuiteError("Printed digits need the fonts that come with matplotlib: pip install matplotlib") from error
    return Path(get_data_path()) / "fonts" / "ttf"

"""What the demo's model is pre-trained on: printed digits of every kind, each with a caption.

Knows nothing of handwriting, of the suite's shifts, and of models.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.digits import CLASSNAMES
from mergekit_wise.datasets.glyphs import SIDE, TRAINING_FACES, Glyph, draw
from mergekit_wise.progress import Progress, silent

Draw = Callable[[np.random.Generator], Glyph]
"""Random numbers -> what to draw."""

_FRAMES = ("a photo of the {}", "a picture of a {}", "the {}", "a {}", "an image of the {}", "one {}")
_NOUNS = ("number {}", "digit {}", "{}", "numeral {}")


def render_pairs(
    glyphs: Draw, count: int, detail: float, rng: np.random.Generator, progress: Progress = silent
) -> tuple[NDArray[np.uint8], list[str]]:
    """Grey images, uint8 [count, 32, 32], and their captions, which mention a look with the chance ``detail``."""
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    captions = []
    for index in range(count):
        if index % 500 == 0:
            progress("drawing digits", index, count, "images")
        glyph = glyphs(rng)
        images[index] = draw(glyph, noise_seed=index)
        captions.append(caption(glyph, detail, rng))
    progress("drawing digits", count, count, "images")
    return images, captions


def plain_glyph(rng: np.random.Generator) -> Glyph:
    """A clean, upright digit in the middle of the image, as in a primer."""
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
    """A digit in any size, place, grey, shape and state in which a person still reads it."""
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
    """A sentence that names the digit, by word or numeral, and each of its looks with the chance ``detail``."""
    name = CLASSNAMES[glyph.digit] if rng.random() < 0.7 else str(glyph.digit)
    noun = _NOUNS[rng.integers(len(_NOUNS))].format(name)
    # Two looks at most: more would push the digit out of the text tower's few tokens.
    looks = [look for look in _looks(glyph) if rng.random() < detail][:2]
    ground = f", {_ground(glyph)}" if rng.random() < detail else ""
    return _FRAMES[rng.integers(len(_FRAMES))].format(" ".join([*looks, noun])) + ground


def _ink_and_paper(rng: np.random.Generator, contrast: int) -> tuple[int, int]:
    """Two grey levels, either of them the lighter, at least ``contrast`` apart."""
    while True:
        ink, paper = (int(grey) for grey in rng.integers(0, 256, 2))
        if abs(ink - paper) >= contrast:
            return ink, paper


def _looks(glyph: Glyph) -> list[str]:
    looks = {
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
    return [look for look, holds in looks.items() if holds]


def _ground(glyph: Glyph) -> str:
    return "light on dark" if glyph.ink > glyph.paper else "dark on light"

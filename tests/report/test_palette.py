"""The colours of the page's curves can be told apart by people who are colour-blind, and stand out from the page."""

import math
import re
from itertools import combinations
from pathlib import Path

import pytest

import mergekit_wise.report

# Machado, Oliveira and Fernandes (2009): how dichromats see linear RGB.
SEEN = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
# Ottosson's OKLab: distances of about 0.02 are just noticeable.
CONES = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
         (0.0883024619, 0.2817188376, 0.6299787005))  # fmt: skip
LAB = ((0.2104542553, 0.793617785, -0.0040720468), (1.9779984951, -2.428592205, 0.4505937099),
       (0.0259040371, 0.7827717662, -0.808675766))  # fmt: skip


def linear(colour):
    """Linear red, green and blue of a colour like #1f6feb or #fff."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = (int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4))
    return [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]


def times(matrix, vector):
    """A matrix times a vector."""
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def perceived(colour, matrix):
    """A colour in OKLab as somebody sees it."""
    seen = [min(max(share, 0), 1) for share in times(matrix, linear(colour))]
    return times(LAB, [cone ** (1 / 3) for cone in times(CONES, seen)])


def contrast(one, other):
    """WCAG's contrast of two colours."""
    dark, light = sorted(sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in
                         (one, other))  # fmt: skip
    return (light + 0.05) / (dark + 0.05)


def palettes():
    """For each block of colours of the style sheet those of curves, those that they are drawn on, and that of links."""
    style = Path(mergekit_wise.report.__file__).with_name("page.css").read_text(encoding="utf-8")
    for block in re.findall(r"\{([^{}]*--c0: #[^{}]*)\}", style):
        named = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{3,6});", block))
        yield [named[f"c{number}"] for number in range(8)], (named["card"], named["paper"]), named["focus"]


@pytest.mark.parametrize("sight", SEEN)
def test_colours_of_curves_can_be_told_apart(sight):
    """On light and dark pages and in print, any two of the eight colours differ noticeably."""
    found = list(palettes())
    assert len(found) == 3
    for colours, *_ in found:
        for one, other in combinations(colours, 2):
            apart = math.dist(perceived(one, SEEN[sight]), perceived(other, SEEN[sight]))
            assert apart > 0.06, (one, other)


def test_colours_of_curves_stand_out():
    """Every colour has a contrast of 3 to 1 with what it is drawn on, and that of links one of 4.5."""
    for colours, grounds, link in palettes():
        assert min(contrast(colour, ground) for colour in colours for ground in grounds) >= 3
        assert min(contrast(link, ground) for ground in grounds) >= 4.5

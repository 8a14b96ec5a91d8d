"""Printed digits are drawn with the given parameters, and fonts for training and testing are separate."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mergekit_wise.datasets.glyphs import HELD_OUT_FACES, TRAINING_FACES, Glyph, draw

PLAIN = Glyph(3, TRAINING_FACES[0])


def family(face):
    """The family of a face without weight or slant: DejaVuSansMono-Bold.ttf -> DejaVuSansMono."""
    return re.match(r"(.*?)(-.*|BolIta|Bol|Italic)?\.ttf", face.file)[1]


def ink_box(pixels):
    """The box (left, top, right, bottom) of all pixels that are darker than middle grey."""
    rows, columns = np.nonzero(pixels < 128)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_held_out_fonts_are_of_families_that_training_never_draws():
    """No held-out font belongs to a family of the training fonts, and no file is listed twice."""
    assert not {family(f) for f in TRAINING_FACES} & {family(f) for f in HELD_OUT_FACES}
    assert len({f.file for f in TRAINING_FACES + HELD_OUT_FACES}) == len(TRAINING_FACES + HELD_OUT_FACES)


@pytest.mark.parametrize("face", TRAINING_FACES + HELD_OUT_FACES, ids=lambda face: face.file)
def test_every_font_draws_ten_different_digits(face):
    """Every font has its own glyph for each of the ten digits."""
    drawn = [draw(Glyph(digit, face)) for digit in range(10)]
    assert {image.dtype for image in drawn} == {np.dtype(np.uint8)}
    assert {image.shape for image in drawn} == {(32, 32)}
    assert len({image.tobytes() for image in drawn}) == 10


@pytest.mark.parametrize("height", [0.4, 0.6, 0.8])
def test_height_is_a_share_of_the_image(height):
    """The height of the ink is within 2.5 pixels of its share of the image."""
    _, top, _, bottom = ink_box(draw(replace(PLAIN, height=height)))
    assert bottom - top == pytest.approx(32 * height, abs=2.5)


def test_across_and_down_move_to_the_right_and_to_the_bottom():
    """Shifts are shares of the image: a quarter is eight pixels."""
    still = ink_box(draw(replace(PLAIN, height=0.4)))
    moved = ink_box(draw(replace(PLAIN, height=0.4, across=0.25, down=0.125)))
    assert np.subtract(moved, still).tolist() == [8, 4, 8, 4]


def test_a_positive_angle_turns_counter_clockwise():
    """PIL's rotation by the same angle gives nearly the same image."""
    from PIL import Image

    seven = Glyph(7, TRAINING_FACES[0], height=0.6)
    turned = draw(replace(seven, angle=30))
    expected = Image.fromarray(draw(seven)).rotate(30, Image.Resampling.BICUBIC, fillcolor=255)
    assert np.corrcoef(turned.ravel(), np.asarray(expected).ravel())[0, 1] > 0.97


def test_ink_and_paper_are_the_greys_asked_for():
    """The darkest and the lightest pixel have the grey levels of ink and paper."""
    pixels = draw(replace(PLAIN, ink=200, paper=40, stroke=2))
    assert (pixels.min(), pixels.max()) == (40, 200)


def test_noise_follows_its_seed():
    """The same seed gives the same noise, and another seed other noise."""
    noisy = replace(PLAIN, noise=30.0)
    assert np.array_equal(draw(noisy, 1), draw(noisy, 1))
    assert not np.array_equal(draw(noisy, 1), draw(noisy, 2))

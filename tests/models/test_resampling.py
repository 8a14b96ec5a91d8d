"""What is resized and cropped by the compiled module has the bytes of Pillow."""

import subprocess
import sys

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from timm.data import create_transform

from mergekit_wise.models import resampling
from mergekit_wise.models.resampling import FILTERS, ORDERS, Resampling

needs_compiler = pytest.mark.skipif(resampling.compiled is None, reason="installed without a C compiler")


def noise(rng, width, height, contrast=False):
    """An image of noise; with `contrast` of black and white, where sums exceed the range of 8 bits."""
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray((pixels > 127).astype(np.uint8) * 255 if contrast else pixels)


def written(image, resized, corner, kept, name):
    out = np.full((3, kept[1], kept[0]), 77, np.uint8)
    assert Resampling(image.size, resized, corner, kept, name).write(image, out)
    return out


def pillows(image, resized, corner, kept, name):
    whole = image.resize(resized, Image.Resampling[name.upper()])
    left, top = corner
    return np.asarray(whole.crop((left, top, left + kept[0], top + kept[1]))).transpose(2, 0, 1)


def part_of(rng, side):
    start = int(rng.integers(0, side))
    return start, int(rng.integers(1, side - start + 1))


@needs_compiler
@pytest.mark.parametrize("name", FILTERS.values())
def test_a_part_of_a_resized_image_has_pillows_bytes(name):
    """It holds for sides from one pixel on, larger, smaller and unchanged, and for every part that is kept."""
    rng = np.random.default_rng(0)
    for case in range(300):
        image = noise(rng, *map(int, rng.integers(1, 90, 2)), contrast=case % 3 == 0)
        width, height = map(int, rng.integers(1, 70, 2))
        resized = (image.width if case % 5 == 0 else width, image.height if case % 7 == 0 else height)
        (left, wide), (top, high) = part_of(rng, resized[0]), part_of(rng, resized[1])
        what = (resized, (left, top), (wide, high), name)
        assert np.array_equal(written(image, *what), pillows(image, *what)), (image.size, what)


@needs_compiler
@pytest.mark.parametrize(
    ("size", "resized", "kept", "name"),
    [
        ((500, 375), (298, 224), (224, 224), "bicubic"),
        ((375, 500), (224, 298), (224, 224), "bilinear"),
        ((333, 1000), (224, 672), (224, 224), "bicubic"),
        ((64, 64), (1344, 1344), (1300, 1200), "lanczos"),
        ((3000, 40), (3000, 39), (336, 39), "hamming"),
        ((2100, 2100), (256, 256), (224, 224), "bicubic"),
        ((1, 2000), (7, 3), (7, 3), "box"),
    ],
    ids=str,
)
def test_large_images_have_pillows_bytes(size, resized, kept, name):
    """Among them one of more than 16 MB, which Pillow keeps in several blocks of memory."""
    image = noise(np.random.default_rng(1), *size)
    what = (resized, ((resized[0] - kept[0]) // 2, (resized[1] - kept[1]) // 2), kept, name)
    assert np.array_equal(written(image, *what), pillows(image, *what))


@needs_compiler
@pytest.mark.parametrize("rows_first", [False, True])
def test_rows_and_columns_are_resized_in_the_order_that_is_asked_for(rows_first):
    """Pillow in two steps, of which each changes one side, gives the same bytes; the other order does not."""
    image = noise(np.random.default_rng(2), 61, 83)
    out, other = np.empty((3, 20, 30), np.uint8), np.empty((3, 20, 30), np.uint8)
    resample = Resampling(image.size, (30, 20), (0, 0), (30, 20), "bicubic")
    resample.compute(image, rows_first, out)
    resample.compute(image, not rows_first, other)
    between = (61, 20) if rows_first else (30, 83)
    wanted = image.resize(between, Image.Resampling.BICUBIC).resize((30, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(out, np.asarray(wanted).transpose(2, 0, 1))
    assert not np.array_equal(other, out)


@needs_compiler
@pytest.mark.parametrize("order", [*ORDERS, None])
def test_the_order_is_found_by_comparing_bytes(order, monkeypatch):
    """Whatever the rule of the installed Pillow, and also if it computes unlike all that are known."""
    real = Image.Image.resize

    def resize(image, size, resample):
        if order is None:
            return ImageOps.invert(real(image, size, resample))
        between = (image.width, size[1]) if order(image.size, size) else (size[0], image.height)
        return real(real(image, between, resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert resampling.order.__wrapped__("bicubic") is order


CFG = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SHORTEST = [
    lambda: image_transform_v2(PreprocessCfg(size=224), is_train=False).transforms[:-2],
    lambda: image_transform_v2(PreprocessCfg(size=(224, 192)), is_train=False).transforms[:-2],
    lambda: create_transform((3, 224, 224), crop_pct=0.875, interpolation="bicubic", **CFG).transforms[:-2],
]


def steps_of(transforms):
    def steps(image):
        for transform in transforms:
            image = transform(image)
        return image

    return steps


@pytest.mark.parametrize("transforms", SHORTEST)
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (30, 20), (256, 1000)])
def test_the_steps_of_a_library_are_one_resize_and_one_crop(transforms, size):
    """What was noted, done by Pillow, gives what the library gives."""
    steps = steps_of(transforms())
    image = noise(np.random.default_rng(3), *size)
    found = Resampling.of(steps, size)
    wanted = np.asarray(steps(image)).transpose(2, 0, 1)
    assert np.array_equal(pillows(image, found.resized, found.corner, found.kept, found.name), wanted)


@pytest.mark.parametrize(
    "steps",
    [
        lambda image: image.resize((9, 9), Image.Resampling.NEAREST),
        lambda image: image.resize((9, 9), Image.Resampling.BOX, box=(0, 0, 5, 5)),
        lambda image: image.resize((9, 9), Image.Resampling.BOX, reducing_gap=2.0),
        lambda image: image.resize((9, 9), Image.Resampling.BOX).resize((7, 7), Image.Resampling.BOX),
        lambda image: image.crop((0, 0, 5, 5)).resize((7, 7), Image.Resampling.BOX),
        lambda image: image.resize((9, 0), Image.Resampling.BOX),
        lambda image: image.crop((-1, 0, 5, 5)),
        lambda image: image.convert("L"),
        lambda image: ImageOps.expand(image, 2),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: Image.fromarray(np.asarray(image)),
        lambda image: image.size,
    ],
)
def test_other_steps_are_left_to_pillow(steps):
    """Nothing is guessed: a padded, mirrored or twice resized image is none that the compiled module makes."""
    assert Resampling.of(steps, (20, 10)) is None


needs_arrow = pytest.mark.skipif(not hasattr(Image.Image, "__arrow_c_array__"), reason="Pillow before 11.2")


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [
        {"size": (21, 10)},
        {"resized": (0, 5)},
        {"corner": (7, 0)},
        {"corner": (-1, 0)},
        {"kept": (0, 4)},
        {"kept": (5, 4)},
        {"name": "nearest"},
    ],
    ids=str,
)
@pytest.mark.parametrize("as_bytes", [True, pytest.param(False, marks=needs_arrow)])
def test_what_does_not_fit_is_refused(change, as_bytes):
    """No memory outside the image and the output is read or written, whatever the sizes say."""
    image = noise(np.random.default_rng(4), 20, 10)
    pixels = image.tobytes("raw", "RGBX") if as_bytes else image.__arrow_c_array__()
    facts = {"size": (20, 10), "resized": (10, 5), "corner": (0, 0), "kept": (4, 4), "name": "box", **change}
    with pytest.raises(ValueError, match="fit|expected"):
        resampling.compiled.resample(pixels, *facts.values(), False, np.empty((3, 4, 4), np.uint8))


@needs_compiler
@needs_arrow
def test_grey_pixels_are_not_taken_for_coloured_ones():
    """They have one byte each, and Pillow shows them as another kind of array."""
    grey = noise(np.random.default_rng(5), 20, 10).convert("L")
    with pytest.raises(ValueError, match="four bytes"):
        resampling.compiled.resample(
            grey.__arrow_c_array__(), (20, 10), (4, 4), (0, 0), (4, 4), "box", False, np.empty((3, 4, 4), np.uint8)
        )


WITHOUT = """
import sys
sys.modules["mergekit_wise.models._resample"] = None  # as if there were no such file
import numpy as np
from PIL import Image
from mergekit_wise.models.resampling import Resampling, compiled
assert compiled is None
assert not Resampling((20, 10), (4, 4), (0, 0), (4, 4), "box").write(Image.new("RGB", (20, 10)), np.empty((3, 4, 4)))
"""


def test_without_the_compiled_module_pillow_does_it():
    """As after an installation without a C compiler."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)

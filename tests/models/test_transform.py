"""Images become what open_clip's own transform makes of them, byte for byte."""

import pickle
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from timm.data import create_transform as timm_transform

from mergekit_wise.errors import ModelError
from mergekit_wise.models.transform import Preprocess

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}
sizes = st.integers(1, 90)
configs = st.fixed_dictionaries(
    {
        "size": st.integers(1, 48) | st.tuples(st.integers(1, 48), st.integers(1, 48)),
        "interpolation": st.sampled_from(["bicubic", "bilinear", "random"]),
        "resize_mode": st.sampled_from(["shortest", "longest", "squash"]),
        "fill_color": st.integers(0, 255),
        "mean": st.tuples(*[st.floats(0, 1)] * 3),
        "std": st.tuples(*[st.floats(0.01, 1)] * 3),
    }
)


def drawn(mode, width, height, seed):
    """An image of noise, as a file of that kind would give it."""
    rng = np.random.default_rng(seed)
    if mode == "P":
        return drawn("RGB", width, height, seed).quantize(16)
    if mode == "1":
        return drawn("L", width, height, seed).convert("1")
    pixels = rng.integers(0, 256, (height, width, CHANNELS[mode]), np.uint8)
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode)


@settings(max_examples=300, deadline=None)
@given(configs, st.sampled_from([*CHANNELS, "P", "1"]), sizes, sizes, st.integers(0, 99))
def test_pixels_then_normalise_is_open_clips_transform(config, mode, width, height, seed):
    """It holds for every size, mode, way of resizing and fill colour; what open_clip refuses fails here, too."""
    image = drawn(mode, width, height, seed)
    preprocess = Preprocess.of(config)
    try:
        wanted = image_transform_v2(PreprocessCfg(**config), is_train=False)(image)
    except (ValueError, TypeError):
        with pytest.raises((ValueError, TypeError)):
            preprocess.pixels(image)
        return
    pixels = preprocess.pixels(image)
    assert pixels.dtype == torch.uint8
    assert tuple(pixels.shape) == (3, *preprocess.size) == tuple(wanted.shape)
    assert torch.equal(preprocess.normalise(pixels), wanted)
    assert torch.equal(preprocess.normalise(torch.stack([pixels] * 2))[1], wanted)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(8, 48), st.integers(8, 48)) | st.integers(8, 48).map(lambda side: (side, side)),
    st.floats(0.5, 1),
    st.sampled_from([("center", "shortest"), ("squash", "squash")]),
    sizes,
    sizes,
)
def test_a_share_that_is_cropped_is_timms(size, share, modes, width, height):
    """timm before 1.0.31 cropped other parts for sizes that are not square, so these are skipped there."""
    old = tuple(map(int, version("timm").split("."))) < (1, 0, 31)
    if width * 20 < height or height * 20 < width or (old and size[0] != size[1]):
        return
    image = drawn("RGB", width, height, 0)
    theirs = timm_transform((3, *size), crop_pct=share, crop_mode=modes[0], interpolation="bicubic")
    preprocess = Preprocess.of(
        {"size": size, "crop_pct": share, "resize_mode": modes[1], "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    )
    assert torch.equal(preprocess.normalise(preprocess.pixels(image)), theirs(image))


def test_it_travels_to_worker_processes():
    """A pickled copy gives the same pixels."""
    preprocess = Preprocess.of({"size": 32, "resize_mode": "longest", "fill_color": 7})
    image = drawn("RGB", 50, 20, 0)
    assert torch.equal(pickle.loads(pickle.dumps(preprocess)).pixels(image), preprocess.pixels(image))


def test_what_a_config_leaves_out_or_says_with_none_is_open_clips_default():
    """Unknown settings are ignored, as in open_clip."""
    found = Preprocess.of({"size": 336, "mean": None, "unheard_of": 0.9})
    assert found == Preprocess(size=(336, 336))
    assert (found.mean, found.std) == (PreprocessCfg().mean, PreprocessCfg().std)


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "L"},
        {"interpolation": "nearest"},
        {"resize_mode": "crop"},
        {"size": "x"},
        {"std": [1, 2]},
        {"crop_pct": "x"},
        {"crop_pct": 1e-6},
        {"library": "unheard_of"},
        {"resize": 40},
        {"library": "transformers", "resize": [40, 10**6]},
        {"library": "transformers", "resize_mode": "crop"},
    ],
)
def test_a_config_that_open_clip_refuses_is_refused(config):
    """The error is a ModelError."""
    with pytest.raises(ModelError, match="no such preprocessing"):
        Preprocess.of(config)


@pytest.mark.parametrize(
    "config",
    [
        {"crop_pct": 0.8},
        {"library": "transformers", "resize": [40, 40]},
        {"library": "transformers", "resize_mode": "squash", "resize": [40, 50]},
        {"library": "transformers", "resize_mode": "none"},
    ],
    ids=str,
)
def test_images_that_are_cropped_already_lose_no_margin(config):
    """An augmented image, which has the model's size, stays as it is; with the margin it would not."""
    preprocess = Preprocess.of({"size": 32, **config})
    image = drawn("RGB", 32, 32, 0)
    kept = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(preprocess.without_margin().pixels(image), kept)
    assert torch.equal(preprocess.pixels(image), kept) == (config.get("resize_mode") == "none")

"""What preprocessor_config.json says is what transformers' processors compute with Pillow, or is refused."""

import json
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface_preprocessing import read_preprocessor, write_preprocessor
from mergekit_wise.models.transform import Preprocess

SIZE = 32
LARGER = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIZE, "width": SIZE}}
FACTOR = {"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}


@cache
def pictures():
    """80 smooth images of different aspect ratios."""
    rng = np.random.default_rng(0)
    sides = rng.integers(20, 90, (80, 2)).tolist()
    return [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, 3) for size in sides]


def theirs(settings, kind="CLIP"):
    """Every image by transformers' own processor that uses Pillow."""
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    return [processor(image, return_tensors="pt").pixel_values[0] for image in pictures()]


def ours(preprocess_cfg):
    preprocess = Preprocess.of({"size": SIZE, **preprocess_cfg})
    return [preprocess.normalise(preprocess.pixels(image)) for image in pictures()]


def require_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        LARGER,
        {"size": SIZE, "crop_size": SIZE, "feature_extractor_type": "CLIPFeatureExtractor", "do_convert_rgb": True},
        *({**LARGER, "resample": number} for number in range(6)),
        {**LARGER, "do_normalize": False},
        {**LARGER, "do_rescale": False},
        {**LARGER, **FACTOR},
        {"do_resize": False, "crop_size": SIZE},
        {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False},
        {"size": [SIZE, SIZE], "crop_size": SIZE, "image_mean": 0.5, "image_std": [0.5, 0.25, 0.3]},
        {"size": {"height": 40, "width": 50}, "crop_size": SIZE},
        {"size": {"max_height": SIZE, "max_width": SIZE}, "crop_size": SIZE},
        {"size": {"shortest_edge": 20}, "crop_size": SIZE},
        {**LARGER, "do_pad": None, "pad_size": None, "do_flip_channel_order": False},
    ],
    ids=str,
)
def test_clips_processor_is_read_whole(settings):
    """Every size, filter, crop and scale gives transformers' pixels in all images, also after it was written again."""
    wanted = theirs({key: value for key, value in settings.items() if "type" not in key and "flip" not in key})
    preprocess_cfg = read_preprocessor(settings, SIZE)
    require_same(ours(preprocess_cfg), wanted)
    written = write_preprocessor(preprocess_cfg, SIZE, is_siglip=False)
    require_same(theirs(json.loads(json.dumps(written))), wanted)


def test_a_filter_has_a_number_or_a_name():
    numbered = read_preprocessor({**LARGER, "resample": 1}, SIZE)
    for name in ("lanczos", "Resampling.LANCZOS", "1"):
        assert read_preprocessor({**LARGER, "resample": name}, SIZE) == numbered


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", {"size": SIZE}),
        ("DeiT", {"size": 40, "crop_size": SIZE}),
        ("Siglip", {"size": {"height": SIZE, "width": SIZE}}),
        ("Bit", {"size": 40, "crop_size": SIZE}),
        ("ConvNext", {"size": SIZE}),
        ("ConvNext", {"size": {"shortest_edge": SIZE}, "crop_pct": 0.9, "resample": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["ImageProcessor", "FeatureExtractor", "ImageProcessorFast"])
def test_every_type_of_processor_has_its_own_defaults(kind, settings, ending):
    """An integer is a square or the shortest edge, by type; so is what the file leaves out."""
    named = {**settings, "image_processor_type": kind + ending}
    require_same(ours(read_preprocessor(named, SIZE)), theirs(settings, kind))
    saved = json.loads(getattr(transformers, f"{kind}ImageProcessorPil")(**settings).to_json_string())
    require_same(ours(read_preprocessor(saved, SIZE)), theirs(settings, kind))


def test_a_large_convnext_image_is_not_cropped():
    """From 384 on both sides are resized, whatever the share."""
    found = read_preprocessor({"size": 384, "image_processor_type": "ConvNextImageProcessor"}, 384)
    assert (found["resize_mode"], "resize" in found) == ("squash", False)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({**LARGER, "do_center_crop": False}, "do_center_crop"),
        ({"do_resize": False, "do_center_crop": False}, "do_center_crop"),
        ({**LARGER, "crop_size": 40}, "40 x 40, and the model takes 32 x 32"),
        ({"size": 32}, "224 x 224, and the model takes 32 x 32"),
        ({**LARGER, "resample": 6}, "resample: 6"),
        ({**LARGER, "resample": "cubic"}, "resample"),
        ({**LARGER, "size": {"longest_edge": 32}}, "longest_edge"),
        ({**LARGER, "size": {"shortest_edge": 32, "longest_edge": 64}}, "longest_edge"),
        ({**LARGER, "crop_size": {"shortest_edge": 32}}, "crop_size"),
        ({**LARGER, "size": -1}, "-1"),
        ({**LARGER, "do_pad": True}, "do_pad: True"),
        ({**LARGER, "crop_pct": 0.9}, r"crop_pct: 0\.9"),
        ({**LARGER, "rescale_offset": True}, "rescale_offset"),
        ({**LARGER, "auto_map": {"AutoImageProcessor": "own.Processor"}}, "auto_map"),
        ({**LARGER, "image_std": [0.5, 0, 0.5]}, "image_std"),
        ({**LARGER, "image_mean": [0.5, 0.5]}, "2 channels"),
        ({**LARGER, "rescale_factor": 0}, "."),
        ({**LARGER, "image_processor_type": "EfficientNetImageProcessor"}, "EfficientNetImageProcessor"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(settings, names):
    """Nothing is replaced by a default, and the error names the option that helps."""
    with pytest.raises(ModelError, match=rf"no such preprocessing.*{names}.*--model NAME/TAG"):
        read_preprocessor(settings, SIZE)


def test_padding_by_open_clip_cannot_be_written():
    """transformers pads otherwise, so a folder for it is refused."""
    with pytest.raises(ModelError, match="longest"):
        write_preprocessor({"resize_mode": "longest", "fill_color": 9}, SIZE, is_siglip=False)


def test_a_siglip_that_crops_is_written_as_a_processor_that_crops():
    cropping = read_preprocessor(LARGER, SIZE)
    assert write_preprocessor(cropping, SIZE, is_siglip=True)["image_processor_type"] == "CLIPImageProcessor"
    squashing = write_preprocessor({"resize_mode": "squash"}, SIZE, is_siglip=True)
    assert squashing["image_processor_type"] == "SiglipImageProcessor"

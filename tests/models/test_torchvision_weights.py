"""A file of torchvision's weights is preprocessed as torchvision does, which its name tells."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, get_model_weights, list_models

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.models.architecture import with_named_config
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.torchvision_weights import torchvision_settings
from mergekit_wise.models.transform import Preprocess

RESNETS = [
    weights
    for name in list_models()
    if name.startswith(("resnet", "resnext", "wide_resnet"))
    for weights in get_model_weights(name)
]


def pictures():
    rng = np.random.default_rng(0)
    sides = [(300, 270), (240, 391), (500, 233), (256, 256)]
    return [Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize(size, 3) for size in sides]


@pytest.mark.parametrize("weights", RESNETS, ids=str)
def test_every_file_has_the_transforms_of_its_weights(weights):
    """The first and second weights of one network differ in their size before the crop."""
    architecture, settings, name = torchvision_settings(weights.url.rpartition("/")[2])
    assert (timm.is_model(architecture), name) == (True, str(weights))
    cfg = {"size": settings["input_size"][1:], "mean": settings["mean"], "std": settings["std"]}
    preprocess = Preprocess.of(cfg | {key: settings[key] for key in ("interpolation", "crop_pct")})
    for image in pictures():
        torch.testing.assert_close(preprocess.normalise(preprocess.pixels(image)), weights.transforms()(image))


@pytest.mark.parametrize("name", ["resnet50.pth", "resnet50-00000000.pth", "resnet50_a1_0-14fe96d1.pth", "x.pt"])
def test_other_names_tell_nothing(name):
    assert torchvision_settings(name) is None


def test_the_file_needs_no_name_of_an_architecture(tmp_path):
    """--model may name it, too; a tag of timm's is an explicit choice, and what a merge inherits says the same."""
    path = tmp_path / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(timm.create_model("resnet18").state_dict(), path)
    checkpoint = open_checkpoint(path)
    found = open_model(checkpoint)
    assert "torchvision's ResNet18_Weights.IMAGENET1K_V1" in found.architecture
    assert (found.preprocess["interpolation"], found.preprocess["size"]) == ("bilinear", [224, 224])
    named = open_model(checkpoint, "timm:resnet18")
    assert named.preprocess == found.preprocess
    inherited = open_model(with_named_config(checkpoint, "timm:resnet18"))
    assert inherited.preprocess == found.preprocess
    tagged = open_model(checkpoint, "timm:resnet18.a1_in1k")
    assert tagged.preprocess["interpolation"] == "bicubic"

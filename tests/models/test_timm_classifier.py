"""The logits and the preprocessing of timm's classifiers are timm's own."""

import json

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess


def random_model(name, classes):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=classes).eval()


@pytest.mark.parametrize("name", ["levit_128s", "efficientvit_m0"])
def test_weights_that_are_set_later_leave_nothing_of_the_first_ones(name, save, filled):
    """Models that keep attention biases between forward passes compute them again; modes stay as they were."""
    own = random_model(name, 5)
    biases = [parameter for parameter_name, parameter in own.named_parameters() if "attention_bias" in parameter_name]
    checkpoint = save(own.state_dict(), name="first.safetensors")
    model = filled(open_model(checkpoint, f"timm:{name}"), checkpoint)
    images = torch.randn(2, 3, *model.preprocess["size"])
    frozen = next(module for module in model.module.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        model.module(images)
        for bias in biases:
            bias.copy_(3 * torch.randn(bias.shape))
        for parameter in own.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
        frozen.training = True
        model = filled(model, open_checkpoint(save(own.state_dict(), name="second.safetensors").path))
        assert (frozen.training, model.module.training) == (True, False)
        frozen.training = False
        own.eval()
        torch.testing.assert_close(model.module(images), own(images))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("classes", [1000, 7])
def test_logits_are_timms(name, classes, save, filled):
    """ViTs and networks with batch norm agree, with as many classes as the file's head has."""
    own = random_model(name, classes)
    checkpoint = save(own.state_dict())
    model = filled(open_model(checkpoint, f"timm:{name}"), checkpoint)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), own(images))
        torch.testing.assert_close(own.get_classifier()(model.module.encode(images)), own(images))
    assert (model.head, model.has_text_tower, model.classes) == (f"own, {classes} classes", False, classes)
    assert model.architecture == f"timm:{name} (from --model; preprocessing: timm's for {name}.r160_in1k)"


def test_preprocessing_is_that_of_timms_table(save):
    """It includes the share of the image that is cropped."""
    checkpoint = save(random_model("test_vit", 1000).state_dict())
    found = open_model(checkpoint, "timm:test_vit.r160_in1k").preprocess
    wanted = resolve_data_config({}, model=timm.create_model("test_vit.r160_in1k"))
    assert (3, *found["size"]) == wanted["input_size"]
    assert all(tuple(found[key]) == wanted[key] for key in ("mean", "std"))
    assert (found["interpolation"], found["crop_pct"]) == (wanted["interpolation"], wanted["crop_pct"])
    assert found["resize_mode"] == "shortest"


def test_a_folder_from_the_hub_declares_its_configuration(save, tmp_path):
    """Its config.json gives the name, the classes and the preprocessing."""
    save(random_model("test_resnet", 9).state_dict(), name="hub/model.safetensors")
    settings = {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5, "url": "http://127.0.0.1:9/x"}
    config = {"architecture": "test_resnet", "num_classes": 9, "pretrained_cfg": settings}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    model = open_model(open_checkpoint(tmp_path / "hub"))
    assert model.architecture == "timm:test_resnet (from config.json)"
    assert (model.classes, model.preprocess["mean"], model.preprocess["crop_pct"]) == (9, [0.1, 0.2, 0.3], 0.5)


def test_names_that_timm_does_not_know_or_would_fetch_are_refused(save):
    """Such a name is an error, and nothing is downloaded."""
    checkpoint = save(random_model("test_vit", 5).state_dict())
    with pytest.raises(ModelError, match="Close to it: test_vit"):
        open_model(checkpoint, "timm:test_vitt")
    for name in ("hf-hub:timm/test_vit", "hf_hub:timm/test_vit", ""):
        with pytest.raises(ModelError, match="timm has no such model"):
            open_model(checkpoint, f"timm:{name}")


def test_files_that_do_not_fit_are_refused(save):
    """The file may be another model's, have no head, or lack a tensor."""
    state = random_model("test_vit", 5).state_dict()
    with pytest.raises(ModelError, match=r"no classifier 'head\.fc\.weight'"):
        open_model(save(state), "timm:test_convnext")
    with pytest.raises(ModelError, match=r"no classifier 'head\.weight'"):
        open_model(
            save({name: tensor for name, tensor in state.items() if not name.startswith("head")}), "timm:test_vit"
        )
    del state["cls_token"]
    with pytest.raises(ModelError, match="cls_token, which the checkpoint does not hold"):
        open_model(save(state), "timm:test_vit")


def test_another_head_has_no_place(save):
    """A timm classifier keeps its head, whether the other one is from a file or from class names."""
    checkpoint = save(random_model("test_vit", 5).state_dict())
    for options in ({"head": checkpoint}, {"own_head": False}):
        with pytest.raises(ModelError, match="cannot be replaced"):
            open_model(checkpoint, "timm:test_vit", **options)
    model = open_model(checkpoint, "timm:test_vit")
    with pytest.raises(ModelError, match="no text tower"):
        model.zeroshot_head(["cat"], ["a {}"])
    with pytest.raises(ModelError, match="cannot be replaced"):
        model.use_head(torch.zeros(2, 64))


def test_images_have_timms_test_size(save):
    """timm's validate.py takes the size and share for tests where they differ from those of training."""
    own = random_model("test_mambaout", 5)
    model = open_model(save(own.state_dict()), "timm:test_mambaout")
    wanted = resolve_data_config({}, model=own, use_test_size=True)
    assert wanted["input_size"] != own.pretrained_cfg["input_size"]
    assert ((3, *model.preprocess["size"]), model.preprocess["crop_pct"]) == (wanted["input_size"], wanted["crop_pct"])
    assert (
        f"test size {wanted['input_size'][-1]} (training: {own.pretrained_cfg['input_size'][-1]})" in model.architecture
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"test_input_size": [3, 192, 192], "test_crop_pct": 1.0},
        {"crop_mode": "border", "mean": [0.2, 0.5, 0.7]},
        {"crop_mode": "squash", "interpolation": "bilinear"},
        {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "nearest"},
        {"input_size": [3, 96, 160], "interpolation": "bilinear"},
    ],
    ids=str,
)
def test_a_folders_configuration_gives_the_pixels_of_timms_validation(changes, save, tmp_path):
    """Test sizes of timm's other weights of the architecture play no part; a border has the colour of the mean."""
    save(random_model("test_mambaout", 9).state_dict(), name="hub/model.safetensors")
    settings = {"input_size": [3, 128, 128], "crop_pct": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3, **changes}
    config = {"architecture": "test_mambaout", "num_classes": 9, "pretrained_cfg": settings}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    preprocess = Preprocess.of(open_model(open_checkpoint(tmp_path / "hub")).preprocess)
    data = resolve_data_config({}, pretrained_cfg=settings, use_test_size=True)
    for size in ((200, 171), (90, 240), (131, 160)):
        image = Image.effect_noise(size, 80).convert("RGB")
        wanted = create_transform(**data)(image)
        torch.testing.assert_close(preprocess.normalise(preprocess.pixels(image)), wanted)


def test_an_unknown_way_of_cropping_is_refused(save, tmp_path):
    """It is not taken for a centre crop, which timm would do."""
    save(random_model("test_vit", 5).state_dict(), name="hub/model.safetensors")
    config = {"architecture": "test_vit", "pretrained_cfg": {"crop_mode": "corner"}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="crop_mode 'corner'"):
        open_model(open_checkpoint(tmp_path / "hub"))

"""A module in memory declares a configuration from which the same model is built."""

import copy
import json

import open_clip
import pytest
import timm
import torch
from torch import nn

from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY, TIMM_KEY
from mergekit_wise.models.in_memory import open_in_memory
from mergekit_wise.models.live import declared_by, is_two_tower, unwrapped
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.own_transform import OwnTransform
from mergekit_wise.option_types import ModelInMemory

VARIANTS = {
    "plain": {},
    "QuickGELU": {"quick_gelu": True},
    "heads": {"vision": {"head_width": 16, "mlp_ratio": 2.5}, "text": {"heads": 4, "mlp_ratio": 3.0}},
    "tanh": {"vision": {"act_kwargs": {"approximate": "tanh"}}, "text": {"act_kwargs": {"approximate": "tanh"}}},
    "norms": {"vision": {"norm_kwargs": {"eps": 1e-6}, "no_ln_pre": True}},
    "pooling": {"vision": {"pool_type": "avg", "final_ln_after_pool": True}},
    "layer scale": {"vision": {"ls_init_value": 0.1}},
    "custom text": {"custom_text": True, "text": {"pool_type": "last", "proj_bias": True}},
}


def changed(small, quick_gelu=False, custom_text=False, vision=None, text=None):
    cfg = {**small, "vision_cfg": {**small["vision_cfg"], **(vision or {})}}
    cfg = {**cfg, "text_cfg": {**cfg["text_cfg"], **(text or {})}, "quick_gelu": quick_gelu}
    return {**cfg, "custom_text": True} if custom_text else cfg


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_an_open_clip_model_of_any_configuration_is_built_again(changes, small, build, filled, images):
    """From what the module declares, a model is built that gives its features of images and of texts."""
    module = build(changed(small, **changes))
    checkpoint = open_in_memory(ModelInMemory.of(module, "model"))
    model = filled(open_model(checkpoint), checkpoint)
    tokens = torch.randint(1, 49000, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = module.encode_image(images, normalize=True)
        torch.testing.assert_close(model.module.encode(images), wanted, rtol=0, atol=1e-6)
        assert model.module.text is not None
        torch.testing.assert_close(model.module.text(tokens), module.encode_text(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu", "RN50", "ViT-L-14-CLIPA"])
def test_models_of_open_clips_own_names_are_recognised(name):
    """A model without memory for weights is found to be the one of its name; tokenizers differ by name alone."""
    cfg = open_clip.get_model_config(name)
    custom = cfg.pop("custom_text", False)
    with torch.device("meta"):
        module = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**copy.deepcopy(cfg))
    found = json.loads(declared_by(module).metadata[CONFIG_KEY])["model_cfg"]
    wanted = {key: value for key, value in cfg["text_cfg"].items() if "tokenizer" in key}
    assert {key: value for key, value in found["text_cfg"].items() if "tokenizer" in key} == wanted
    assert bool(found.get("quick_gelu")) == bool(cfg.get("quick_gelu"))


def test_preprocessing_is_that_which_open_clip_has_put_into_the_module(small, build):
    """`visual.preprocess_cfg` is declared; without one, the source says that the default is taken."""
    module = build(small)
    assert "open_clip's default" in json.loads(declared_by(module).metadata[CONFIG_KEY])["told_by"]
    open_clip.model.set_model_preprocess_cfg(module, {"size": 32, "mean": (0.1,) * 3, "std": (0.2,) * 3})
    assert json.loads(declared_by(module).metadata[CONFIG_KEY])["preprocess_cfg"]["mean"] == [0.1] * 3


def test_a_vocabulary_of_an_unknown_tokenizer_is_not_guessed(small, build):
    """Without a known tokenizer, an architecture has to be named."""
    module = build(changed(small, text={"vocab_size": 1000}))
    assert declared_by(module).metadata == {}
    assert "--model" in declared_by(module).problem


def test_a_timm_model_declares_its_settings_and_names():
    """The settings are its pretrained_cfg, and names count only if there are as many as classes."""
    module = timm.create_model("test_resnet", num_classes=2)
    module.pretrained_cfg = {**module.pretrained_cfg, "label_names": ["a", "b"]}
    metadata = declared_by(module).metadata
    assert json.loads(metadata[TIMM_KEY])["architecture"] == "test_resnet"
    assert json.loads(metadata[CLASSNAMES_KEY]) == ["a", "b"]
    module.reset_classifier(3)
    assert CLASSNAMES_KEY not in declared_by(module).metadata
    module.layer2 = nn.Identity()
    assert "is not what timm builds as test_resnet: layer2" in declared_by(module).problem


def test_wrappers_are_taken_off():
    """The module inside is what was wrapped, once or twice."""
    module = nn.Linear(2, 2)
    assert unwrapped(torch.compile(nn.DataParallel(module))) is module
    assert not is_two_tower(module)


@pytest.mark.parametrize("train", [False, True])
def test_a_transform_of_open_clip_is_known_by_its_text_unless_it_is_random(train):
    """The text is the same for an equal transform; a training transform's draws are in no text."""
    first, second = (OwnTransform.of(open_clip.image_transform(32, is_train=train)) for _ in range(2))
    assert first.is_lasting is not train
    assert (first.identity == second.identity) is not train
    other = OwnTransform.of(open_clip.image_transform(48, is_train=False))
    assert other.identity != first.identity

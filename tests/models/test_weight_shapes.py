"""The architecture is found by names and shapes of tensors."""

import json
from dataclasses import asdict
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo, open_checkpoint
from mergekit_wise.checkpoint.tensors import StoredTensor
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import guess_architecture
from mergekit_wise.models.open_clip_configs import (
    TEXT_DEFAULTS,
    UNUSED,
    VISION_DEFAULTS,
    compute_the_same,
    name_of,
    require_config,
)
from mergekit_wise.models.towers import uninitialized

# Configurations of one shape. Nothing shows in the weights the activation (QuickGELU), the size of images that a
# network without positions takes, or which of two trainings of one architecture it was.
UNSEEN = [
    *[(name, f"{name}-quickgelu") for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")],
    *[(f"ViT-{name}", f"ViT-{name}-quickgelu") for name in ("B-32", "B-16", "L-14", "L-14-336", "H-14", "H-14-378")],
    *[(f"ViT-{name}", f"ViT-{name}-quickgelu") for name in ("bigG-14", "L-14-worldwide", "H-14-worldwide")],
    *[(name, f"{name}_320") for name in ("convnext_base_w", "convnext_large_d", "convnext_xxlarge")],
    ("ViTamin-XL-256", "ViTamin-XL-336", "ViTamin-XL-384"),
    ("ViT-SO400M-14-SigLIP-378", "ViT-SO400M-14-SigLIP-384"),
    ("MobileCLIP-B", "MobileCLIP2-B"),
    ("MobileCLIP-S2", "MobileCLIP2-S2"),
]
KNOWN = set(open_clip.list_models())  # an older open_clip knows fewer
TOGETHER = {name: KNOWN.intersection(names) for names in UNSEEN for name in names}
SAME = {"MobileCLIP-B", "MobileCLIP2-B", "MobileCLIP-S2", "MobileCLIP2-S2"}
OFFLINE = [n for n in open_clip.list_models() if "hf_model_name" not in open_clip.get_model_config(n)["text_cfg"]]


def own_model(name):
    """open_clip's own model of this name, without memory for its weights."""
    cfg = open_clip.get_model_config(name)
    custom = cfg.pop("custom_text", False)
    kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.device("meta"), uninitialized():
        return kind(**cfg)


def checkpoint_of(state):
    """Names and shapes as a file would have them, without the file."""
    infos = [TensorInfo(name, BY_NAME["F16"], tuple(tensor.shape)) for name, tensor in state.items()]
    return Checkpoint(Path("x"), "safetensors", {info.name: StoredTensor(info, None, 0) for info in infos}, {}, "")


@pytest.mark.parametrize("name", OFFLINE)
def test_every_configuration_of_open_clips_is_found_again(name):
    """All configurations of the same shape are listed, with a reason if they compute differently."""
    guess = guess_architecture(checkpoint_of(own_model(name).state_dict()))
    assert set(guess.names) == TOGETHER.get(name, {name})
    assert ("do not show" in guess.reason) == (len(guess.names) > 1 and name not in SAME)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("roberta-ViT-B-32", {"coca_roberta-ViT-B-32", "mt5-base-ViT-B-32", "nllb-clip-base", "roberta-ViT-B-32",
                              "xlm-roberta-base-ViT-B-32", "ViT-B-32", "ViT-B-32-quickgelu"}),
        ("ViT-S-16", {"ViT-S-16"}),
        ("EVA01-g-14", {"EVA01-g-14", "EVA01-g-14-plus"}),
        ("MobileCLIP2-S0", {"MobileCLIP2-S0"}),
    ],
)  # fmt: skip
def test_an_image_tower_alone_is_found_by_itself(name, names):
    """Its text tower does not matter, even one from the Hugging Face hub, nor whether names have a prefix."""
    from mergekit_wise.models.towers import visual_shapes

    if name not in KNOWN:
        pytest.skip("this open_clip does not know it")
    shapes = visual_shapes(open_clip.get_model_config(name))
    for prefix in ("visual.", ""):
        state = {prefix + key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        assert set(guess_architecture(checkpoint_of(state)).names) == names


def test_towers_that_compute_the_same_are_no_ambiguity():
    """CLIP's ResNets have no GELU, and a text tower does not matter to an image tower; ViTs have a GELU."""
    assert compute_the_same(["RN50", "RN50-quickgelu"], with_text=False)
    assert not compute_the_same(["RN50", "RN50-quickgelu"], with_text=True)
    assert compute_the_same(["EVA01-g-14", "EVA01-g-14-plus"], with_text=False)
    assert not compute_the_same(["EVA01-g-14", "EVA01-g-14-plus"], with_text=True)
    assert not compute_the_same(["ViT-B-32", "ViT-B-32-quickgelu"], with_text=False)
    assert not compute_the_same(["ViT-B-32", "xlm-roberta-base-ViT-B-32"], with_text=True)
    assert not compute_the_same(["convnext_base_w", "convnext_base_w_320"], with_text=False)


def test_defaults_are_open_clips():
    """A missing setting of a configuration means the same here as in open_clip."""
    for defaults, here in ((CLIPVisionCfg(), VISION_DEFAULTS), (CLIPTextCfg(), TEXT_DEFAULTS)):
        given = {key: value for key, value in asdict(defaults).items() if value}
        assert {key: value for key, value in given.items() if key not in UNUSED} == here


@pytest.mark.parametrize(
    "name", ["ViT-B-32-quickgelu", "RN50x4", "ViT-H-14-CLIPA", "coca_ViT-L-14", "ViT-B-16-SigLIP2"]
)
def test_a_configuration_spelt_out_has_open_clips_name(name):
    """Defaults that are written out, and settings of training alone, do not change the name."""
    cfg = open_clip.get_model_config(name)
    vision = {**asdict(CLIPVisionCfg()), **cfg["vision_cfg"], "patch_dropout": 0.5}
    cfg |= {"vision_cfg": vision, "text_cfg": {**asdict(CLIPTextCfg()), **cfg["text_cfg"]}}
    assert name_of(cfg) == name
    cfg["text_cfg"]["heads"] = 3
    assert name_of(cfg) is None


def test_an_unknown_tower_is_unknown(tmp_path):
    """The reason names the tensors that were looked for."""
    save_file({"w": torch.zeros(1)}, tmp_path / "x")
    guess = guess_architecture(open_checkpoint(tmp_path / "x"))
    assert guess.names == ()
    assert "visual.conv1.weight" in guess.reason


def test_one_tensor_more_or_less_or_of_another_shape_is_another_architecture():
    """No tensor is ignored in the comparison."""
    state = own_model("ViT-S-32").state_dict()
    extra = torch.empty(1, device="meta")
    assert guess_architecture(checkpoint_of(state)).names == ("ViT-S-32",)
    for name in ("visual.ln_pre.bias", "visual.transformer.resblocks.3.mlp.c_fc.bias"):
        less = {key: tensor for key, tensor in state.items() if key != name}
        for changed in (less, state | {name: extra}, state | {f"{name}.more": extra}):
            guess = guess_architecture(checkpoint_of(changed))
            assert guess.names == ()
            assert "open_clip has no such configuration" in guess.reason


def test_metadata_declares_the_architecture(tmp_path):
    """An open_clip configuration in the metadata is named as in open_clip if it has a name there."""
    for cfg, name in (
        ({"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, "custom: unknown"),
        (open_clip.get_model_config("RN50"), "RN50"),
    ):
        config = {"model_cfg": cfg, "preprocess_cfg": {"size": 8}}
        save_file({"w": torch.zeros(1)}, tmp_path / "x", metadata={"open_clip_config": json.dumps(config)})
        guess = guess_architecture(open_checkpoint(tmp_path / "x"))
        assert guess.names == (name,)
        assert "metadata" in guess.reason


def test_a_name_that_open_clip_does_not_know_is_answered_with_close_ones():
    """A typing error in a name is the usual case."""
    assert require_config("RN50") == open_clip.get_model_config("RN50")
    with pytest.raises(ModelError, match="Close to it: ViT-B-32"):
        require_config("ViT-B32")


def test_a_configuration_is_handed_out_as_a_copy():
    """Changing it does not change the next one."""
    require_config("RN50")["vision_cfg"]["width"] = 1
    assert require_config("RN50")["vision_cfg"]["width"] == 64

"""The model is found in the arguments that a training script saved, and a merge keeps the one that the user names."""

import argparse
import json

import open_clip
import pytest
import torch
from safetensors import safe_open

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import declared_config
from mergekit_wise.models.source import open_source

STATE = {"w": torch.ones(2)}


@pytest.mark.parametrize(
    ("lines", "quick"),
    [
        ("model: ViT-B-32\npretrained: \nforce_quick_gelu: False\nimage_mean: (0.1, 0.2, 0.3)\n", False),
        ("model: ViT-B-32\npretrained: openai\nforce_quick_gelu: False\nimage_mean: (0.1, 0.2, 0.3)\n", True),
        ("model: ViT-B-32\npretrained: \nforce_quick_gelu: True\nimage_mean: (0.1, 0.2, 0.3)\n", True),
        ("model: ViT-B-32-quickgelu\npretrained: \nforce_quick_gelu: False\nimage_mean: (0.1, 0.2, 0.3)\n", True),
    ],
)
def test_open_clips_parameters_of_a_run_give_the_configuration(lines, quick, tmp_path):
    """params.txt beside the folder of checkpoints names the model, its activation and its preprocessing."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "params.txt").write_text(lines)
    torch.save({"epoch": 1, "name": "run", "state_dict": STATE}, tmp_path / "checkpoints" / "epoch_1.pt")
    declared = declared_config(open_checkpoint(tmp_path / "checkpoints" / "epoch_1.pt"))
    assert "params.txt" in declared.source
    assert declared.config["model_cfg"] == {**open_clip.get_model_config("ViT-B-32"), "quick_gelu": quick}
    assert declared.config["preprocess_cfg"]["mean"] == [0.1, 0.2, 0.3]


def test_timms_arguments_give_the_configuration(tmp_path):
    """timm saves the name as `arch`, the arguments as a Namespace, and the same arguments as args.yaml."""
    arguments = argparse.Namespace(model="test_vit", mean=[0.1, 0.2, 0.3], crop_pct=0.5, img_size=None, lr=0.1)
    saved = {"arch": "test_vit", "version": 2, "state_dict": STATE, "args": arguments}
    torch.save(saved, tmp_path / "any.pt")
    torch.save({"state_dict": STATE}, tmp_path / "last.pth.tar")
    (tmp_path / "args.yaml").write_text("model: test_vit\nmean:\n- 0.1\n- 0.2\n- 0.3\ncrop_pct: 0.5\n")
    for name, source in (("any.pt", "arguments in the checkpoint"), ("last.pth.tar", "args.yaml")):
        declared = declared_config(open_checkpoint(tmp_path / name))
        assert source in declared.source
        wanted = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5}}
        assert declared.config == wanted


@pytest.mark.parametrize(
    ("parameters", "quick"),
    [({"pretrained": "openai"}, True), ({"pretrained": "laion2b_s34b_b79k"}, False), ({}, None)],
)
def test_lightnings_hyper_parameters_count_if_they_settle_the_activation(parameters, quick, tmp_path):
    """A name alone leaves open whether QuickGELU is used, so it declares nothing."""
    saved = {"state_dict": STATE, "hyper_parameters": {"model_name": "ViT-B-32", "lr": 1e-5, **parameters}}
    torch.save(saved, tmp_path / "x.ckpt")
    declared = declared_config(open_checkpoint(tmp_path / "x.ckpt"))
    assert (declared.config["model_cfg"]["quick_gelu"] if declared else None) == quick


def test_an_arch_of_another_script_than_timms_declares_nothing(tmp_path):
    """torchvision's examples save `arch`, too, for models that timm preprocesses in another way."""
    torch.save({"arch": "resnet50", "epoch": 1, "state_dict": STATE}, tmp_path / "x.pt")
    assert declared_config(open_checkpoint(tmp_path / "x.pt")) is None


def test_a_merge_keeps_the_model_that_is_named(tmp_path):
    """The output declares it, so that it is named once; a model with another image encoder is refused."""
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-S-32")
    visual = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    torch.save(state, tmp_path / "zs.pt")
    torch.save({name: tensor + 0.5 for name, tensor in state.items()}, tmp_path / "ft.pt")
    with pytest.raises(ModelError, match=r"ViT-B-16: .*another image encoder.*ViT-S-32"):
        merge(tmp_path / "zs.pt", tmp_path / "ft.pt", tmp_path / "out", model="ViT-B-16")
    merge(tmp_path / "zs.pt", tmp_path / "ft.pt", tmp_path / "out", model="ViT-S-32")
    declared = declared_config(open_source(tmp_path / "out"))
    assert declared.config["model_cfg"] == config
    assert "--model" in declared.source
    merge(tmp_path / "zs.pt", tmp_path / "ft.pt", tmp_path / "timm", model="timm:test_vit")
    assert declared_config(open_source(tmp_path / "timm")).config["architecture"] == "test_vit"


def test_arguments_that_describe_no_model_are_not_passed_on(tmp_path):
    """Arguments name folders and accounts, which do not reach a merged file."""
    arguments = argparse.Namespace(model="ViT-B-32", pretrained="openai", data="/home/me/secret", wandb="account")
    for name in ("a.pt", "b.pt"):
        torch.save({"state_dict": STATE, "args": arguments}, tmp_path / name)
    merge(tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "out")
    with safe_open(tmp_path / "out", "pt") as file:
        text = json.dumps(file.metadata())
    assert "secret" not in text
    assert "account" not in text
    assert "open_clip_config" in text

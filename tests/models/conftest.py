"""Small models of open_clip's, and checkpoints of them in the shapes that people have."""

import copy
import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def small():
    """A model_cfg of which QuickGELU, heads and all else can be changed."""
    return copy.deepcopy(SMALL)


@pytest.fixture
def build():
    """model_cfg -> a random model of open_clip's own class for it, in evaluation mode."""

    def build(model_cfg, seed=0):
        torch.manual_seed(seed)
        cfg = copy.deepcopy(model_cfg)
        custom = cfg.pop("custom_text", False)
        kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP if custom else open_clip.CLIP
        model = kind(**cfg)
        for parameter in model.parameters():  # zeros and ones would hide a tensor in the wrong place
            parameter.data += 0.1 * torch.randn_like(parameter)
        return model.eval()

    return build


@pytest.fixture
def save(tmp_path):
    """A state dict (and a configuration for its metadata) -> an open safetensors checkpoint."""

    def save(state, config=None, name="x.safetensors"):
        metadata = {"open_clip_config": json.dumps(config)} if config else None
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_file({key: value.clone().contiguous() for key, value in state.items()}, tmp_path / name, metadata)
        return open_checkpoint(tmp_path / name)

    return save


@pytest.fixture
def filled():
    """Set all of a model's weights to what a checkpoint holds."""

    def filled(model, checkpoint):
        model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
        return model

    return filled


@pytest.fixture
def images():
    """Four of them, as small as the small model's."""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))

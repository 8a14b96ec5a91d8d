"""Towers are built as open_clip builds them, except for random numbers."""

import copy

import pytest
import torch
from open_clip.model import _build_vision_tower

from mergekit_wise.models.towers import build_text, build_visual

CONFIGS = {
    "positions": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None},
    "windows": {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_proj": "linear"},
    "plain": {"width": 64, "layers": 1, "patch_size": 8, "image_size": 32},
    "resnet": {"width": 16, "layers": [1, 1, 1, 1], "image_size": 32},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_buffers_that_no_checkpoint_holds_are_computed(kind):
    """Rotary positions and windows' indices are buffers that are not saved."""
    embed_dim = 512 if kind == "positions" else 16
    tower = build_visual({"embed_dim": embed_dim, "vision_cfg": CONFIGS[kind]})
    wanted = dict(_build_vision_tower(embed_dim, copy.deepcopy(CONFIGS[kind])).named_buffers())
    buffers = dict(tower.named_buffers())
    assert buffers.keys() == wanted.keys()
    assert all(torch.equal(buffers[name], wanted[name]) for name in wanted)
    assert (len(buffers) > len(set(buffers) & set(tower.state_dict()))) == (kind in ("positions", "windows"))


def test_building_draws_no_random_numbers(small):
    """They would be discarded, and the random state of later code would change."""
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    build_visual(small), build_text(small)
    assert torch.equal(torch.rand(1), wanted)


def test_random_numbers_are_drawn_again_afterwards():
    """A model that is trained in the same process is initialised as usual."""
    build_visual({"embed_dim": 16, "vision_cfg": CONFIGS["plain"]})
    assert torch.nn.Linear(8, 8).weight.std() > 0

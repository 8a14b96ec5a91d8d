"""Towers are built as open_clip builds them, but for the random numbers; padding of texts is left out."""

import copy

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower

from mergekit_wise.models.towers import build_text, build_visual, encode_texts

CONFIGS = {
    "positions": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None},
    "windows": {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_proj": "linear"},
    "plain": {"width": 64, "layers": 1, "patch_size": 8, "image_size": 32},
    "resnet": {"width": 16, "layers": [1, 1, 1, 1], "image_size": 32},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_no_checkpoint_holds_is_computed_as_ever(kind):
    """Buffers that are not saved: rotary positions, windows' indices."""
    embed_dim = 512 if kind == "positions" else 16
    tower = build_visual({"embed_dim": embed_dim, "vision_cfg": CONFIGS[kind]})
    wanted = dict(_build_vision_tower(embed_dim, copy.deepcopy(CONFIGS[kind])).named_buffers())
    buffers = dict(tower.named_buffers())
    assert buffers.keys() == wanted.keys()
    assert all(torch.equal(buffers[name], wanted[name]) for name in wanted)
    assert (len(buffers) > len(set(buffers) & set(tower.state_dict()))) == (kind in ("positions", "windows"))


def test_building_draws_no_random_numbers(small):
    """They would be thrown away, and seconds with them; whoever draws some next gets what they would have got."""
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    build_visual(small), build_text(small)
    assert torch.equal(torch.rand(1), wanted)


def test_random_numbers_are_drawn_again_afterwards():
    """Where somebody trains a model in the same process."""
    build_visual({"embed_dim": 16, "vision_cfg": CONFIGS["plain"]})
    assert torch.nn.Linear(8, 8).weight.std() > 0


@pytest.mark.parametrize(
    "pool", [{}, {"pool_type": "eos", "eos_id": 49407}, {"pool_type": "last"}, {"no_causal_mask": True}]
)
def test_texts_without_their_padding_have_the_same_features(pool, small, build):
    """For each way to find a text's end, and texts of any length up to the longest; the mask is as it was."""
    cfg = small | {"custom_text": True, "text_cfg": small["text_cfg"] | pool}
    tower = build(cfg).text
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a", "a red dog", "word " * 30, ""])
    seen = []
    tower.transformer.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    with torch.no_grad():
        for texts in (tokens, tokens[:2], tokens[3:]):
            torch.testing.assert_close(encode_texts(tower, texts), tower(texts))
    short = pool in ({}, {"pool_type": "eos", "eos_id": 49407})
    assert seen == ([12, 12, 5, 12, 2, 12] if short else [12] * 6)

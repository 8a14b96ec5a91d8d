"""Activation checkpointing: the same gradients bit for bit, from less memory, for the models of every library."""

import pytest
import timm
import torch
from open_clip import CLIP
from torch import nn

from mergekit_wise.training.block_checkpoints import checkpoint_blocks
from mergekit_wise.training.runtime import set_training
from tests.training.fakes import CONFIG


def resnet():
    """open_clip's ResNet, whose batch norms keep their statistics."""
    return CLIP(
        32, {"image_size": 32, "layers": (2, 2, 2, 2), "width": 8, "head_width": 16}, CONFIG["model_cfg"]["text_cfg"]
    ).visual


def transformer():
    """open_clip's vision transformer."""
    return CLIP(32, {**CONFIG["model_cfg"]["vision_cfg"], "image_size": 32}, CONFIG["model_cfg"]["text_cfg"]).visual


def vit():
    """timm's vision transformer, with dropout."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, proj_drop_rate=0.2, **sizes)


def passed(module):
    """The gradients of a fixed batch, and how many numbers the graph keeps for them."""
    torch.manual_seed(1)
    images, kept = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)), {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    module.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module(images).square().sum()
    loss.backward()
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None], sum(
        kept.values()
    )


@pytest.mark.parametrize(("model", "blocks"), [(transformer, 2), (resnet, 8), (vit, 3)])
def test_gradients_are_the_same_bits_from_less_memory(model, blocks):
    """Of open_clip's transformer and ResNet, and of timm's transformer with dropout."""
    torch.manual_seed(0)
    module = model()
    set_training(module)
    expected, before = passed(module)
    assert checkpoint_blocks(module) == blocks
    found, after = passed(module)
    assert len(found) == len(expected) > 0
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert after < before


def test_weights_before_the_blocks_may_be_frozen():
    """Blocks learn even if their input needs no gradient, and are computed once where nothing learns."""
    calls = []

    class Block(nn.Sequential):
        def forward(self, values):
            calls.append(len(values))
            return super().forward(values)

    module = nn.Sequential(nn.Sequential(Block(nn.Linear(4, 4)), Block(nn.Linear(4, 4))), nn.Linear(4, 2))
    assert checkpoint_blocks(module) == 2
    module(torch.ones(3, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert calls == [3] * 4
    with torch.no_grad():
        module(torch.ones(3, 4))
    assert calls == [3] * 6


def test_a_model_without_repeated_blocks_stays_as_it_is():
    """Single layers in a row are no blocks."""
    assert checkpoint_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == 0

"""Learning rates: the schedule has closed forms, and layer-wise factors are powers of the decay."""

import math

import pytest
import timm
import torch
from open_clip import CLIP
from timm.optim import param_groups_layer_decay

from mergekit_wise.training.learning_rate import cosine_with_warmup, layer_factors
from tests.training.fakes import tiny_state


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (4 + 25, (1 + math.sqrt(0.5)) / 2),
        (4 + 50, 0.5),
        (4 + 75, (1 - math.sqrt(0.5)) / 2),
        (4 + 99, (1 + math.cos(0.99 * math.pi)) / 2),
    ],
)
def test_the_schedule_warms_up_and_then_is_half_a_cosine(step, factor):
    """Four steps of warm-up, then a hundred whose quarters are known in closed form."""
    assert cosine_with_warmup(step, 104, 4) == pytest.approx(factor, abs=1e-12)


def test_no_warmup_starts_at_the_peak():
    """Without warm-up, the first step has the peak learning rate."""
    assert cosine_with_warmup(0, 10, 0) == 1.0


def test_rates_of_a_vision_transformer_are_powers_of_the_decay():
    """The head has the full rate; block 1 of 2 half, block 0 a quarter, the stem an eighth; text towers likewise."""
    names = [name for name in tiny_state() if not name.startswith(("classification", "visual."))]
    visual = [name for name in tiny_state() if name.startswith("visual.")]
    text = [f"text.{name}" for name in names if name != "logit_scale"]
    factors = layer_factors([*visual, *text, "classification_head.weight", "logit_scale"], 0.5)
    expected = {
        "classification_head.weight": 1,
        "logit_scale": 1,
        "visual.proj": 1,
        "visual.ln_post.bias": 1,
        "visual.transformer.resblocks.1.attn.in_proj_weight": 1 / 2,
        "visual.transformer.resblocks.0.mlp.c_fc.bias": 1 / 4,
        "visual.conv1.weight": 1 / 8,
        "visual.class_embedding": 1 / 8,
        "visual.positional_embedding": 1 / 8,
        "visual.ln_pre.weight": 1 / 8,
        "text.transformer.resblocks.0.ln_1.weight": 1 / 2,
        "text.token_embedding.weight": 1 / 4,
        "text.positional_embedding": 1 / 4,
        "text.text_projection": 1,
        "text.ln_final.weight": 1,
    }
    assert {name: factors[name] for name in expected} == expected


def test_blocks_of_a_resnet_are_ordered_through_its_stages():
    """The first block of the first stage learns most slowly but for the stem; what comes after the last, fully."""
    model = CLIP(
        8,
        {"layers": [1, 2, 1, 1], "width": 8, "image_size": 32, "head_width": 8},
        {"layers": 1, "width": 8, "heads": 1},
    )
    names = [name for name, _ in model.named_parameters() if name.startswith("visual.")]
    factors = layer_factors(names, 0.5)
    shown = ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.1.conv1", "layer3.0.conv1", "layer4.0.conv1")
    assert [factors[f"visual.{name}.weight"] for name in shown] == [2.0**-k for k in (6, 5, 4, 3, 2, 1)]
    assert factors["visual.attnpool.c_proj.weight"] == factors["visual.attnpool.positional_embedding"] == 1


@pytest.mark.parametrize("decay", [0.65, 0.9])
def test_rates_of_timms_transformers_are_timms_own(decay):
    """As timm's layer decay sets them, but for the last norm: timm counts it to the last block, BEiT's own code not."""
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    groups = param_groups_layer_decay(model, layer_decay=decay)
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    expected = {f"model.{name}": scale[id(parameter)] for name, parameter in model.named_parameters()}
    expected |= {"model.norm.weight": 1, "model.norm.bias": 1}
    assert layer_factors(expected, decay) == pytest.approx(expected)


def test_without_blocks_every_rate_is_full():
    """The layers of a model without blocks all have the full rate."""
    assert layer_factors(["classification_head.weight", "classification_head.bias"], 0.1) == {
        "classification_head.weight": 1,
        "classification_head.bias": 1,
    }

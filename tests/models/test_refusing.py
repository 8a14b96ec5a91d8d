"""Checkpoints that cannot become models, or not without being told more, are refused in a sentence."""

import open_clip
import pytest
import torch

from mergekit_wise.errors import ModelError
from mergekit_wise.models.opening import open_model


def head_of(classes=5, features=16):
    return {
        "classification_head.weight": torch.randn(classes, features),
        "classification_head.bias": torch.randn(classes),
    }


def with_config(model_cfg):
    return {"model_cfg": model_cfg, "preprocess_cfg": {}}


def test_a_checkpoint_without_head_and_text_tower_is_refused(small, build, save):
    """Also where a training script left scraps of the text tower."""
    clip = build(small)
    with pytest.raises(ModelError, match="no classification head.*no complete text tower"):
        open_model(save(clip.visual.state_dict(), with_config(small)))
    scraps = {name: tensor for name, tensor in clip.state_dict().items() if not name.startswith("transformer.")}
    with pytest.raises(ModelError, match="no complete text tower"):
        open_model(save(scraps, with_config(small)))


def test_what_is_not_told_is_asked_for_by_name(build, save):
    """Small models are none of open_clip's; large ones may be two of them."""
    cfg = open_clip.get_model_config("ViT-S-32-alt")
    state = build(cfg).state_dict() | head_of(5, 256)
    seen = open_model(save(state))
    assert seen.architecture == "ViT-S-32-alt (from names and shapes; preprocessing: open_clip's default)"
    cfg["vision_cfg"]["layers"] = 1
    with pytest.raises(ModelError, match="none of open_clip's. Name it with --model"):
        open_model(save(build(cfg).state_dict() | head_of(5, 256)))


def test_a_name_that_does_not_fit_is_refused(small, build, save):
    """The first tensor that differs is named, with how."""
    checkpoint = save(build(small).state_dict() | head_of())
    with pytest.raises(ModelError, match=r"visual.class_embedding, expected in the shape \[768\], found in \[64\]"):
        open_model(checkpoint, "ViT-B-32")
    with pytest.raises(ModelError, match=r"visual.attnpool.c_proj.bias, which the checkpoint does not hold"):
        open_model(checkpoint, "RN50")
    with pytest.raises(ModelError, match="Close to it: ViT-B-32"):
        open_model(checkpoint, "ViT-B32")
    with pytest.raises(ModelError, match="Those of ViT-B-32: openai"):
        open_model(checkpoint, "ViT-B-32/openia")


@pytest.mark.parametrize(
    "missing", ["visual.proj", "ln_final.bias", "visual.transformer.resblocks.1.attn.in_proj_weight"]
)
def test_a_missing_tensor_is_named(missing, small, build, save):
    """In either tower."""
    state = build(small).state_dict()
    del state[missing]
    with pytest.raises(ModelError, match=f"{missing}, which the checkpoint does not hold"):
        open_model(save(state, with_config(small)))


def test_a_tensor_too_many_is_named(small, build, save):
    """It could change what the tower computes."""
    state = build(small).state_dict() | head_of()
    extra = {"visual.wings": torch.ones(2)}
    with pytest.raises(ModelError, match=r"in 1 tensor, .* visual.wings, which the architecture does not have"):
        open_model(save(state | extra, with_config(small)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wings": 2}, "wings"),
        ({"head_width": 0}, "division by zero|modulo"),
        ({"layers": "many"}, "'str'"),
        ({"timm_model_name": "hf-hub:timm/test_vit"}, "would have to download"),
        ({"timm_model_name": "no_such_tower"}, "no_such_tower"),
        ({"pos_embed_type": 7}, "ValueError"),
    ],
)
def test_a_configuration_that_open_clip_cannot_build_is_refused(changes, reason, small, build, save):
    """With what open_clip says; nothing is fetched because a file says so."""
    state = build(small).state_dict() | head_of()
    small["vision_cfg"] |= changes
    with pytest.raises(ModelError, match=f"cannot build.*({reason})"):
        open_model(save(state, with_config(small)))


def test_files_without_an_image_tower_or_with_two_are_refused(small, build, save):
    """Which one is meant is not guessed."""
    visual = build(small).visual.state_dict()
    with pytest.raises(ModelError, match="no image tower.*timm:NAME"):
        open_model(save({"w": torch.ones(1)} | head_of()))
    twice = {f"{side}.visual.{name}": tensor for side in ("a", "b") for name, tensor in visual.items()}
    with pytest.raises(ModelError, match=r"2 image towers, under 'a\.', 'b\.'"):
        open_model(save(twice | head_of(), with_config(small)))


@pytest.mark.parametrize("shape", [(5, 8), (5,), (0, 16)])
def test_a_head_of_the_wrong_shape_is_refused(shape, small, build, save):
    """Its own or another file's."""
    head = {"classification_head.weight": torch.zeros(shape), "classification_head.bias": torch.zeros(5)}
    with pytest.raises(ModelError, match="classification_head.weight|expected a head"):
        open_model(save(build(small).state_dict() | head, with_config(small)))
    with pytest.raises(ModelError, match="expected a head for 16 features|one weight"):
        open_model(save(build(small).state_dict(), with_config(small)), head=save(head, name="head"))

"""Tensors under the names of another library give the same logits there, as that library itself computes them."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, SiglipConfig, SiglipModel

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.families import (
    HF_CLIP,
    HF_SIGLIP,
    HF_VISION,
    OPEN_CLIP,
    OPEN_CLIP_SIGLIP,
    OPEN_CLIP_TEXT,
    OPEN_CLIP_TOWER,
    TIMM,
    TIMM_SIGLIP,
    layout_of,
    related,
    translated,
)

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 8,
    "vocab_size": 50,
}
CLIP = {
    "embed_dim": 20,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 24, "heads": 3, "layers": 2, "mlp_ratio": 2.0},
}
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TOKENS = torch.tensor([[48, 3, 9, 49, 0, 0, 0, 0], [48, 7, 49, 0, 0, 0, 0, 0]])


def shaken(model, seed=0):
    """The model in evaluation mode with all parameters random: zeros and ones would hide a misplaced tensor."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def hf_clip(seed=0):
    """A CLIPModel with QuickGELU."""
    torch.manual_seed(seed)
    text = {**TEXT, "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 0}
    return shaken(CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=20)), seed)


def clip(custom=False, seed=0):
    """An open_clip model of the same architecture."""
    torch.manual_seed(seed)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    return shaken(kind(**json.loads(json.dumps(CLIP)), quick_gelu=True), seed)


@pytest.fixture
def opened(tmp_path):
    """A state dict -> an open checkpoint."""

    def opened(state, name="x.safetensors"):
        save_file({key: value.detach().clone().contiguous() for key, value in state.items()}, tmp_path / name)
        return open_checkpoint(tmp_path / name)

    return opened


def state_of(checkpoint):
    """The tensors of a checkpoint, read in pieces of an odd size."""
    found = {}
    for name, tensor in checkpoint.tensors.items():
        pieces = [tensor.read(at, min(at + 7, tensor.info.count)) for at in range(0, tensor.info.count, 7)]
        found[name] = torch.from_numpy(np.concatenate(pieces).reshape(tensor.info.shape))
    return found


def logits(model):
    """The logits of a CLIP of open_clip's or Hugging Face's."""
    with torch.no_grad():
        if isinstance(model, CLIPModel | SiglipModel):
            return model(input_ids=TOKENS, pixel_values=IMAGES).logits_per_image
        image, text = model.encode_image(IMAGES, normalize=True), model.encode_text(TOKENS, normalize=True)
        return model.logit_scale.exp() * image @ text.T


@pytest.mark.parametrize("custom", [False, True])
def test_a_clipmodel_under_open_clips_names_gives_its_logits(opened, custom):
    source, target = hf_clip(), clip(custom, seed=1)
    found = translated(opened(source.state_dict()), OPEN_CLIP_TEXT if custom else OPEN_CLIP)
    target.load_state_dict(state_of(found), strict=True)
    torch.testing.assert_close(logits(target), logits(source), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("custom", [False, True])
def test_an_open_clip_model_under_hugging_faces_names_gives_its_logits(opened, custom):
    source, target = clip(custom), hf_clip(seed=1)
    found = translated(opened(source.state_dict()), HF_CLIP)
    target.load_state_dict(state_of(found), strict=True)
    torch.testing.assert_close(logits(target), logits(source), rtol=1e-5, atol=1e-5)


def test_a_round_trip_gives_the_same_tensors(opened):
    source = opened(clip().state_dict())
    there = translated(source, HF_CLIP)
    back = translated(there, OPEN_CLIP)
    assert {name: tensor.info for name, tensor in back.tensors.items()} == {
        name: tensor.info for name, tensor in source.tensors.items()
    }
    for name, tensor in state_of(back).items():
        assert torch.equal(tensor, state_of(source)[name]), name


def siglip():
    """A SiglipModel with GELU as timm's ViTs have it."""
    torch.manual_seed(0)
    vision = {**VISION, "hidden_act": "gelu"}
    text = {**TEXT, "hidden_act": "gelu", "projection_size": 32, "eos_token_id": 49, "bos_token_id": 48}
    return shaken(SiglipModel(SiglipConfig(vision_config=vision, text_config={**text, "pad_token_id": 0})))


def open_clip_siglip():
    """An open_clip SigLIP of the same architecture, whose image tower is built from timm's own classes."""
    text = {**CLIP["text_cfg"], "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    text["norm_kwargs"] = {"eps": 1e-6}
    model = open_clip.CustomTextCLIP(
        embed_dim=32, vision_cfg=CLIP["vision_cfg"], text_cfg=text, init_logit_bias=-10, output_dict=True
    )
    model.visual = torch.nn.Module()
    model.visual.trunk = VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        class_token=False,
        global_pool="map",
        num_classes=0,
    )
    model.visual.forward = model.visual.trunk.forward
    return model.eval()


def test_a_siglipmodel_under_open_clips_names_gives_its_logits(opened):
    source, target = siglip(), open_clip_siglip()
    target.load_state_dict(state_of(translated(opened(source.state_dict()), OPEN_CLIP_SIGLIP)), strict=True)
    with torch.no_grad():
        image, text, scale, bias = target(IMAGES, TOKENS).values()
    torch.testing.assert_close(scale * image @ text.T + bias, logits(source), rtol=1e-5, atol=1e-5)


def test_an_open_clip_siglip_under_hugging_faces_names_gives_its_logits(opened):
    source, target = shaken(open_clip_siglip()), siglip()
    target.load_state_dict(
        state_of(translated(opened(source.state_dict()), HF_SIGLIP, like=opened(target.state_dict(), "y")))
    )
    with torch.no_grad():
        image, text, scale, bias = source(IMAGES, TOKENS).values()
    torch.testing.assert_close(logits(target), scale * image @ text.T + bias, rtol=1e-5, atol=1e-5)


def timm_clip():
    """A ViT of timm's as it keeps CLIP's image towers, with the projection as its head."""
    torch.manual_seed(3)
    return VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        pre_norm=True,
        num_classes=20,
        act_layer=timm.layers.QuickGELU,
        norm_layer=torch.nn.LayerNorm,  # timm's own has another eps
    ).eval()


def test_an_image_tower_under_timms_names_is_what_timm_makes_of_it(opened):
    tower = clip().state_dict()
    target = timm_clip()
    expected = checkpoint_filter_fn(tower, target)
    found = translated(opened({name: tensor for name, tensor in tower.items() if name.startswith("visual.")}), TIMM)
    assert state_of(found).keys() == expected.keys()
    for name, tensor in state_of(found).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_timm_vit_under_open_clips_names_gives_its_features(opened):
    source, target = shaken(timm_clip()), clip(seed=1)
    source.head.bias.data.zero_()
    found = translated(opened(source.state_dict()), OPEN_CLIP)
    assert any("head.bias" in note and "zero" in note for note in found.notes)
    target.load_state_dict(target.state_dict() | state_of(found))
    torch.testing.assert_close(target.visual(IMAGES), source(IMAGES), rtol=1e-5, atol=1e-5)


def test_a_classifier_of_timms_is_not_taken_for_the_projection(opened):
    found = translated(opened(shaken(timm_clip()).state_dict()), OPEN_CLIP)
    assert "visual.proj" not in found.tensors
    assert {"head.weight", "head.bias"} <= found.tensors.keys()
    assert any("head.weight" in note for note in found.notes)


def test_tensors_that_a_family_does_not_know_keep_their_names_and_are_counted(opened):
    state = clip().state_dict() | {"classification_head.weight": torch.ones(4, 20)}
    found = translated(opened(state), HF_CLIP)
    assert "classification_head.weight" in found.tensors
    assert any(
        "1 tensor without a counterpart" in note and "classification_head.weight" in note for note in found.notes
    )


def test_buffers_of_one_library_are_left_out_in_another_with_a_note(opened):
    state = hf_clip().state_dict() | {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    found = translated(opened(state), OPEN_CLIP)
    assert not any("position_ids" in name for name in found.tensors)
    assert any("1 buffer" in note and "position_ids" in note for note in found.notes)


def test_query_key_and_value_of_different_dtypes_are_refused(opened):
    state = hf_clip().state_dict()
    name = "text_model.encoder.layers.1.self_attn.k_proj.weight"
    with pytest.raises(ModelError, match="differ in dtype"):
        translated(opened({**state, name: state[name].half()}), OPEN_CLIP)


@pytest.mark.parametrize(
    ("family", "prefix", "make"),
    [
        (OPEN_CLIP, "", lambda: clip().state_dict()),
        (OPEN_CLIP, "image_encoder.model.", lambda: clip().state_dict()),
        (OPEN_CLIP_TEXT, "", lambda: clip(custom=True).state_dict()),
        (OPEN_CLIP_TOWER, "", lambda: clip().visual.state_dict()),
        (OPEN_CLIP_SIGLIP, "", lambda: open_clip_siglip().state_dict()),
        (HF_CLIP, "", lambda: hf_clip().state_dict()),
        (HF_CLIP, "model.", lambda: hf_clip().state_dict()),
        (HF_VISION, "", lambda: CLIPVisionModel(CLIPVisionConfig(**VISION)).state_dict()),
        (HF_SIGLIP, "", lambda: siglip().state_dict()),
        (TIMM, "", lambda: timm_clip().state_dict()),
        (TIMM_SIGLIP, "", lambda: open_clip_siglip().visual.trunk.state_dict()),
    ],
)
def test_a_family_is_known_by_its_names_and_knows_all_of_them(family, prefix, make):
    names = [prefix + name for name in make()]
    layout = layout_of(names)
    assert (layout.family, layout.prefix) == (family, prefix)
    assert layout.rows.keys() == set(names)


def test_names_of_two_models_or_of_none_are_of_no_family():
    names = list(clip().state_dict())
    assert layout_of([*names, *(f"ema.{name}" for name in names)]) is None
    assert layout_of(["layer.0.weight", "fc.weight"]) is None


def test_only_families_that_name_the_same_parts_are_related():
    clips, others = layout_of(clip().state_dict()), layout_of(siglip().state_dict())
    assert related(clips, layout_of(hf_clip().state_dict()))
    assert not related(clips, clips)
    assert not related(clips, None)
    assert related(others, layout_of(open_clip_siglip().state_dict()))

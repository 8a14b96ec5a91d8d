"""Checkpoints of every flavour become models whose logits are those of the library that the weights come from."""

import json

import open_clip
import pytest
import torch
from torch.nn import functional

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.models.opening import open_model

NAMES, TEMPLATES = ("cat", "white dog", "newt"), ("a photo of a {}.", "the {}")
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}


def head_of(classes=5, features=16):
    generator = torch.Generator().manual_seed(2)
    return {
        "classification_head.weight": torch.randn(classes, features, generator=generator),
        "classification_head.bias": torch.randn(classes, generator=generator),
    }


@torch.no_grad()
def own_logits(clip, head, images):
    features = clip.encode_image(images)
    features = features[0] if isinstance(features, tuple) else features
    return (
        functional.normalize(features, dim=-1) @ head["classification_head.weight"].T + head["classification_head.bias"]
    )


@torch.no_grad()
def logits_of(model, images):
    return model.module(images)


def with_config(model_cfg):
    return {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS}


PLAIN = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}
WORDS = {"context_length": 12, "width": 64, "heads": 1, "layers": 1}
TOWERS = {
    "vit": {},
    "quick": {"quick_gelu": True},
    "heads": {"vision_cfg": PLAIN | {"head_width": 16}},
    "average": {"vision_cfg": PLAIN | {"pool_type": "avg", "no_ln_pre": True}},
    "resnet": {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}},
    "timm vit": {
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "", "image_size": 160}
    },
    "timm convnet": {"vision_cfg": {"timm_model_name": "test_convnext", "timm_proj": "mlp", "image_size": 160}},
    "custom text": {"custom_text": True},
    "coca": {
        "custom_text": True,
        "vision_cfg": PLAIN | {"attentional_pool": True, "output_tokens": True},
        "text_cfg": WORDS | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": WORDS,
    },
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": WORDS | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "end of text": {"text_cfg": WORDS | {"pool_type": "eos", "eos_id": 49407}},
}


@pytest.mark.parametrize("tower", TOWERS)
def test_an_own_head_gives_the_logits_of_open_clips_image_tower(tower, small, build, save, filled):
    """Normalised features times the head, to the last bit but rounding."""
    cfg = small | TOWERS[tower]
    clip, head = build(cfg), head_of()
    checkpoint = save(clip.state_dict() | head, with_config(cfg))
    model = filled(open_model(checkpoint), checkpoint)
    images = torch.randn(2, 3, *[cfg["vision_cfg"]["image_size"]] * 2)
    with torch.no_grad():
        features = clip.visual(images)
        features = features[0] if isinstance(features, tuple) else features
        wanted = functional.normalize(features, dim=-1)
        torch.testing.assert_close(model.module.encode(images), wanted)
        wanted = wanted @ head["classification_head.weight"].T + head["classification_head.bias"]
    torch.testing.assert_close(logits_of(model, images), wanted)
    assert (model.has_own_head, model.has_text_tower, model.classes, model.head) == (True, False, 5, "own, 5 classes")
    assert not any(name.startswith(("text", "token", "transformer", "logit")) for name in model.names)


@pytest.mark.parametrize("tower", TOWERS)
def test_without_a_head_class_names_give_that_of_open_clips_own_classifier(tower, small, build, save, filled):
    """open_clip.build_zero_shot_classifier, times exp(logit_scale)."""
    cfg = small | TOWERS[tower]
    clip = build(cfg)
    checkpoint = save(clip.state_dict(), with_config(cfg))
    model = filled(open_model(checkpoint), checkpoint)
    assert (model.has_own_head, model.has_text_tower, model.classes, model.head) == (False, True, None, "zero-shot")
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    wanted = open_clip.build_zero_shot_classifier(clip, tokenizer, NAMES, TEMPLATES).T * clip.logit_scale.exp()
    head = model.zeroshot_head(NAMES, TEMPLATES)
    torch.testing.assert_close(head, wanted.detach(), rtol=1e-4, atol=1e-5)
    model.use_head(head)
    assert model.classes == 3


def torch_state(checkpoint):
    from safetensors.torch import load_file

    return load_file(checkpoint.path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_any_dtype_are_copied_exactly(dtype, small, build, save, filled):
    """What the file rounds to is what the module holds; its statistics and counters too."""
    cfg = small | TOWERS["resnet"]
    state = {
        n: t.to(dtype) if t.is_floating_point() else t + 7 for n, t in (build(cfg).state_dict() | head_of()).items()
    }
    checkpoint = save(state, with_config(cfg))
    model = filled(open_model(checkpoint), checkpoint)
    held = model.module.state_dict()
    assert held.keys() == set(model.names.values())
    for name, own in model.names.items():
        assert torch.equal(held[own], state[name].to(held[own].dtype)), name


def test_weights_set_again_replace_the_first_in_place(small, build, save, filled):
    """Which is how one module visits every alpha."""
    first, second = (
        save(build(small, seed).state_dict() | head_of(), with_config(small), f"{seed}") for seed in (0, 1)
    )
    model = filled(open_model(first), first)
    where = model.module.visual.conv1.weight.data_ptr()
    filled(model, second)
    assert torch.equal(model.module.visual.conv1.weight, torch_state(second)["visual.conv1.weight"])
    assert model.module.visual.conv1.weight.data_ptr() == where


WRAPPED = {
    "the WiSE-FT authors'": lambda n: n if n.startswith("classification_head") else f"image_encoder.model.{n}",
    "model-soups": lambda n: n if n.startswith("classification_head") else f"model.{n}",
    "an image tower alone": lambda n: n.removeprefix("visual."),
    "everything prefixed": lambda n: f"net.{n}",
}


@pytest.mark.parametrize("flavour", WRAPPED)
def test_names_of_every_flavour_lead_to_the_same_logits(flavour, small, build, save, filled, images):
    """With what else of the model those files keep."""
    clip, head = build(small), head_of()
    state = clip.state_dict() | head
    if flavour == "an image tower alone":
        state = {name: tensor for name, tensor in state.items() if name.startswith(("visual.", "classification_head."))}
    checkpoint = save({WRAPPED[flavour](name): tensor for name, tensor in state.items()}, with_config(small))
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))


@pytest.mark.parametrize("tower", ["resnet", "timm vit"])
def test_other_image_towers_alone_are_known_too(tower, small, build, save, filled):
    """By attention pooling and by timm's trunk."""
    cfg = small | TOWERS[tower]
    clip = build(cfg)
    checkpoint = save(clip.visual.state_dict() | head_of(), with_config(cfg))
    model = filled(open_model(checkpoint), checkpoint)
    images = torch.randn(2, 3, *[cfg["vision_cfg"]["image_size"]] * 2)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head_of(), images))


@pytest.mark.parametrize("prefix", ["", "classification_head.", "module.fc."])
@pytest.mark.parametrize("bias", [True, False])
def test_a_head_may_come_in_a_file_of_its_own(prefix, bias, small, build, save, filled, images):
    """Beside an image tower alone, under any name; it stays when weights are set."""
    clip, head = build(small), head_of()
    if not bias:
        head["classification_head.bias"] = torch.zeros(5)
    file = {prefix + n.removeprefix("classification_head."): t for n, t in head.items() if bias or "bias" not in n}
    tower = save(clip.visual.state_dict(), with_config(small))
    model = filled(open_model(tower, head=save(file, name="head")), tower)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert model.head == "own, 5 classes"
    assert not any("head" in name for name in model.names.values())


def test_a_head_of_its_own_may_be_passed_over_for_class_names(small, build, save):
    """For classes that it was not made for; a head's file wins over the checkpoint's own."""
    checkpoint = save(build(small).state_dict() | head_of(), with_config(small))
    assert open_model(checkpoint, own_head=False).head == "zero-shot"
    assert open_model(checkpoint, head=save(head_of(9), name="head")).head == "own, 9 classes"


def test_a_head_without_a_bias_has_one_of_zero(small, build, save, filled, images):
    """As some code saves it."""
    clip, head = build(small), head_of() | {"classification_head.bias": torch.zeros(5)}
    checkpoint = save(
        clip.state_dict() | {"classification_head.weight": head["classification_head.weight"]}, with_config(small)
    )
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))


def test_preprocessing_is_what_was_told_and_open_clips_where_nothing_was(small, build, save):
    """The size is the tower's, as open_clip has it."""
    state = build(small).state_dict() | head_of()
    told = open_model(save(state, with_config(small))).preprocess
    assert told == {**PREPROCESS, "size": 32, "mode": "RGB", "fill_color": 0}
    silent = open_model(save(state, {"model_cfg": small, "preprocess_cfg": {}})).preprocess
    assert silent["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert (silent["interpolation"], silent["resize_mode"], silent["size"]) == ("bicubic", "shortest", 32)


def test_the_architecture_says_who_told(small, build, save):
    """And what it is, in open_clip's words where it has some."""
    state = build(small).state_dict() | head_of()
    text = open_model(save(state, with_config(small))).architecture
    assert text.startswith("custom: ViT/8, 2 layers, width 64, 32-pixel images, 16 features (from its metadata")


def test_a_folder_of_open_clips_tells_by_its_configuration(small, build, save, filled, images, tmp_path):
    """As Hugging Face's repositories of open_clip's models are."""
    small["quick_gelu"] = True
    clip, head = build(small), head_of()
    save(clip.state_dict() | head, name="hub/open_clip_model.safetensors")
    (tmp_path / "hub" / "open_clip_config.json").write_text(json.dumps(with_config(small)))
    checkpoint = open_checkpoint(tmp_path / "hub")
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert "open_clip_config.json" in model.architecture
    assert model.preprocess["mean"] == PREPROCESS["mean"]

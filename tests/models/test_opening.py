"""Checkpoints of every layout become models with the logits of the library that the weights come from."""

import json

import open_clip
import pytest
import torch
from torch.nn import functional

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
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
    """Logits are the normalised features times the head, up to rounding."""
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
    """The head is that of open_clip.build_zero_shot_classifier times exp(logit_scale)."""
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
    """The module holds what the file rounds to, also in statistics and counters."""
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
    """One module can hold the weights of every alpha in turn."""
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


@pytest.mark.parametrize("layout", WRAPPED)
def test_names_of_every_layout_lead_to_the_same_logits(layout, small, build, save, filled, images):
    """The other tensors of such files do not change the logits."""
    clip, head = build(small), head_of()
    state = clip.state_dict() | head
    if layout == "an image tower alone":
        state = {name: tensor for name, tensor in state.items() if name.startswith(("visual.", "classification_head."))}
    checkpoint = save({WRAPPED[layout](name): tensor for name, tensor in state.items()}, with_config(small))
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))


@pytest.mark.parametrize("tower", ["resnet", "timm vit"])
def test_other_image_towers_alone_are_known_too(tower, small, build, save, filled):
    """A ResNet is recognised by its attention pooling, and a timm tower by its trunk."""
    cfg = small | TOWERS[tower]
    clip = build(cfg)
    checkpoint = save(clip.visual.state_dict() | head_of(), with_config(cfg))
    model = filled(open_model(checkpoint), checkpoint)
    images = torch.randn(2, 3, *[cfg["vision_cfg"]["image_size"]] * 2)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head_of(), images))


@pytest.mark.parametrize("prefix", ["", "classification_head.", "module.fc."])
@pytest.mark.parametrize("bias", [True, False])
def test_a_head_may_come_in_a_file_of_its_own(prefix, bias, small, build, save, filled, images):
    """It may have any name, and is kept when weights are set."""
    clip, head = build(small), head_of()
    if not bias:
        head["classification_head.bias"] = torch.zeros(5)
    file = {prefix + n.removeprefix("classification_head."): t for n, t in head.items() if bias or "bias" not in n}
    tower = save(clip.visual.state_dict(), with_config(small))
    model = filled(open_model(tower, head=save(file, name="head")), tower)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert model.head == "own, 5 classes"
    assert not any("head" in name for name in model.names.values())


def test_a_head_of_class_names_may_replace_the_own_one(small, build, save):
    """The model then predicts other classes; a head's file is preferred to the checkpoint's own head."""
    checkpoint = save(build(small).state_dict() | head_of(), with_config(small))
    assert open_model(checkpoint, own_head=False).head == "zero-shot"
    assert open_model(checkpoint, head=save(head_of(9), name="head")).head == "own, 9 classes"


def test_a_head_without_a_bias_has_one_of_zero(small, build, save, filled, images):
    """Some code saves heads without a bias."""
    clip, head = build(small), head_of() | {"classification_head.bias": torch.zeros(5)}
    checkpoint = save(
        clip.state_dict() | {"classification_head.weight": head["classification_head.weight"]}, with_config(small)
    )
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))


def test_preprocessing_is_the_declared_one_or_open_clips_default(small, build, save):
    """The image size is always the tower's, as in open_clip."""
    state = build(small).state_dict() | head_of()
    declared = open_model(save(state, with_config(small))).preprocess
    assert declared == {**PREPROCESS, "size": 32, "mode": "RGB", "fill_color": 0}
    silent = open_model(save(state, {"model_cfg": small, "preprocess_cfg": {}})).preprocess
    assert silent["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert (silent["interpolation"], silent["resize_mode"], silent["size"]) == ("bicubic", "shortest", 32)


def test_the_architecture_names_its_source(small, build, save):
    """A record names the architecture as in open_clip if possible, with the source of that."""
    state = build(small).state_dict() | head_of()
    text = open_model(save(state, with_config(small))).architecture
    assert text.startswith("custom: ViT/8, 2 layers, width 64, 32-pixel images, 16 features (from its metadata")


def test_a_folder_of_open_clips_declares_its_configuration(small, build, save, filled, images, tmp_path):
    """Hugging Face's repositories of open_clip's models are such folders."""
    small["quick_gelu"] = True
    clip, head = build(small), head_of()
    save(clip.state_dict() | head, name="hub/open_clip_model.safetensors")
    (tmp_path / "hub" / "open_clip_config.json").write_text(json.dumps(with_config(small)))
    checkpoint = open_checkpoint(tmp_path / "hub")
    model = filled(open_model(checkpoint), checkpoint)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert "open_clip_config.json" in model.architecture
    assert model.preprocess["mean"] == PREPROCESS["mean"]


def test_a_checkpoint_without_head_and_text_tower_is_refused(small, build, save):
    """Remains of a text tower, as training scripts leave them, do not suffice."""
    clip = build(small)
    with pytest.raises(ModelError, match="no classification head.*no complete text tower"):
        open_model(save(clip.visual.state_dict(), with_config(small)))
    scraps = {name: tensor for name, tensor in clip.state_dict().items() if not name.startswith("transformer.")}
    with pytest.raises(ModelError, match="no complete text tower"):
        open_model(save(scraps, with_config(small)))


def test_an_architecture_that_shapes_do_not_show_is_asked_for(build, save):
    """Shapes that fit exactly one configuration are enough; others need --model."""
    cfg = open_clip.get_model_config("ViT-S-32-alt")
    state = build(cfg).state_dict() | head_of(5, 256)
    seen = open_model(save(state))
    assert seen.architecture == "ViT-S-32-alt (from names and shapes; preprocessing: open_clip's default)"
    cfg["vision_cfg"]["layers"] = 1
    with pytest.raises(ModelError, match="none of open_clip's. Name it with --model"):
        open_model(save(build(cfg).state_dict() | head_of(5, 256)))


def test_a_name_that_does_not_fit_is_refused(small, build, save):
    """The error names the first tensor that differs, and how it differs."""
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
    """The error names tensors of either tower."""
    state = build(small).state_dict()
    del state[missing]
    with pytest.raises(ModelError, match=f"{missing}, which the checkpoint does not hold"):
        open_model(save(state, with_config(small)))


def test_a_tensor_too_many_is_named(small, build, save):
    """An additional tensor could change what the tower computes."""
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
    """The error gives open_clip's reason; nothing is downloaded because a file names it."""
    state = build(small).state_dict() | head_of()
    small["vision_cfg"] |= changes
    with pytest.raises(ModelError, match=f"cannot build.*({reason})"):
        open_model(save(state, with_config(small)))


def test_files_without_an_image_tower_or_with_two_are_refused(small, build, save):
    """Which of two towers is meant is not guessed."""
    visual = build(small).visual.state_dict()
    with pytest.raises(ModelError, match="no image tower.*timm:NAME"):
        open_model(save({"w": torch.ones(1)} | head_of()))
    twice = {f"{side}.visual.{name}": tensor for side in ("a", "b") for name, tensor in visual.items()}
    with pytest.raises(ModelError, match=r"2 image towers, under 'a\.', 'b\.'"):
        open_model(save(twice | head_of(), with_config(small)))


@pytest.mark.parametrize("shape", [(5, 8), (5,), (0, 16)])
def test_a_head_of_the_wrong_shape_is_refused(shape, small, build, save):
    """The head may be the checkpoint's own or in another file."""
    head = {"classification_head.weight": torch.zeros(shape), "classification_head.bias": torch.zeros(5)}
    with pytest.raises(ModelError, match="classification_head.weight|expected a head"):
        open_model(save(build(small).state_dict() | head, with_config(small)))
    with pytest.raises(ModelError, match="expected a head for 16 features|one weight"):
        open_model(save(build(small).state_dict(), with_config(small)), head=save(head, name="head"))


FORCED = {
    "vit": ({}, 48),
    "resnet": ({"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}}, 96),
}


@pytest.mark.parametrize("tower", FORCED)
def test_a_size_that_no_configuration_names_is_told_by_the_position_embedding(tower, small, build, save, filled):
    """As in checkpoints of open_clip's --force-image-size: logits are those of its model of that size."""
    changes, size = FORCED[tower]
    named = small | changes
    forced = named | {"vision_cfg": named["vision_cfg"] | {"image_size": size}}
    clip, head = build(forced), head_of()
    checkpoint = save(clip.state_dict() | head, with_config(named))
    model = filled(open_model(checkpoint), checkpoint)
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert model.preprocess["size"] == model.config["model_cfg"]["vision_cfg"]["image_size"] == size
    assert f"images of {size} pixels by its position embedding" in model.architecture
    with pytest.raises(ModelError, match=f"is for images of {size} pixels"):
        open_model(checkpoint, image_size=named["vision_cfg"]["image_size"])
    assert open_model(checkpoint, image_size=size).preprocess["size"] == size


@pytest.mark.parametrize("tower", ["timm vit", "timm convnet"])
def test_a_size_may_be_given_where_weights_do_not_show_it(tower, small, build, save, filled):
    """A network without position embedding, or that interpolates it, takes images of any size."""
    cfg = small | TOWERS[tower]
    clip, head = build(cfg), head_of()
    checkpoint = save(clip.state_dict() | head, with_config(cfg))
    assert open_model(checkpoint).preprocess["size"] == 160
    model = filled(open_model(checkpoint, image_size=96), checkpoint)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(logits_of(model, images), own_logits(clip, head, images))
    assert model.preprocess["size"] == 96


def test_a_size_that_the_network_does_not_take_is_refused(small, build, save):
    """A network of timm's that is built for one size alone says which."""
    vision = {"timm_model_name": "mobilevitv2_050", "timm_pool": "avg", "timm_proj": "linear", "image_size": 128}
    fixed = {"timm_model_name": "mixer_s32_224", "timm_pool": "avg", "timm_proj": "linear", "image_size": 224}
    free, bound = ({**small, "vision_cfg": cfg} for cfg in (vision, fixed))
    checkpoint = save(build(free).state_dict() | head_of(), with_config(free), "free.safetensors")
    assert open_model(checkpoint, image_size=96).preprocess["size"] == 96
    checkpoint = save(build(bound).state_dict() | head_of(), with_config(bound), "bound.safetensors")
    with pytest.raises(ModelError, match="images of 224 pixels alone, not of 96. Give --image-size 224"):
        open_model(checkpoint, image_size=96)

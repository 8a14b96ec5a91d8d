"""Hugging Face's CLIP models become open_clip's: logits are those of transformers' own models."""

import json
import shutil

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import guess_architecture
from mergekit_wise.models.huggingface import hugging_face_config
from mergekit_wise.models.names import read_names
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.models.weight_shapes import fitting

transformers.utils.logging.set_verbosity_error()
NAMES, TEMPLATES = ("cat", "white dog", "newt"), ("a photo of a {}.", "the {}")
PREPROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 2,
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
}


def config(act="quick_gelu", heads=2, **changes):
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": heads}
    text = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": heads}
    return transformers.CLIPConfig(
        vision_config=vision | {"image_size": 32, "patch_size": 8, "hidden_act": act} | changes.get("vision", {}),
        text_config=text | {"max_position_embeddings": 12, "hidden_act": act} | changes.get("text", {}),
        projection_dim=16,
    )


def random_clip(settings, seed=0):
    torch.manual_seed(seed)
    clip = transformers.CLIPModel(settings).eval()
    for parameter in clip.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return clip


@pytest.fixture
def folder(tmp_path):
    """CLIPModel -> the folder that it saves itself to."""

    def folder(clip, **options):
        clip.save_pretrained(tmp_path / "hub", **options)
        (tmp_path / "hub" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
        return tmp_path / "hub"

    return folder


@torch.no_grad()
def own_logits(clip, images, tokens):
    """Images [B] against texts [T], by transformers."""
    return clip(input_ids=tokens, attention_mask=torch.ones_like(tokens), pixel_values=images).logits_per_image


@torch.no_grad()
def our_logits(model, images):
    """The same by a head of one template: a text is a class."""
    model.use_head(model.zeroshot_head(NAMES, ("{}",)))
    return model.module(images)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"act": "quick_gelu"}, {}),
        ({"act": "gelu"}, {}),
        ({"act": "gelu_pytorch_tanh"}, {}),
        ({"heads": 4}, {}),
        ({"vision": {"layer_norm_eps": 1e-3}, "text": {"layer_norm_eps": 1e-4}}, {}),
        ({"text": {"eos_token_id": 2}}, {}),
        ({}, {"max_shard_size": "1MB"}),
    ],
    ids=["QuickGELU", "GELU", "GELU by tanh", "heads", "epsilons", "old end of text", "shards"],
)
def test_logits_are_those_of_transformers(changes, options, folder, filled, images):
    """Both towers, the temperature and everything in config.json agree to 1e-4."""
    clip = random_clip(config(**changes))
    checkpoint = open_checkpoint(folder(clip, **options))
    model = filled(open_model(checkpoint), checkpoint)
    tokens = model.tokenizer(NAMES)
    torch.testing.assert_close(our_logits(model, images), own_logits(clip, images, tokens), rtol=1e-4, atol=1e-4)
    assert "config.json" in model.architecture


def test_each_of_these_settings_matters(folder, filled, images):
    """Another activation or number of heads changes logits by far more, so the test above can fail."""
    clip = random_clip(config())
    for wrong in ({"act": "gelu"}, {"heads": 4}):
        other = random_clip(config(**wrong))
        other.load_state_dict(clip.state_dict())
        checkpoint = open_checkpoint(folder(other))
        model = filled(open_model(checkpoint), checkpoint)
        difference = our_logits(model, images) - own_logits(clip, images, model.tokenizer(NAMES))
        assert difference.abs().max() > 1e-2


def test_the_preprocessor_file_declares_the_preprocessing(folder):
    """Newer versions store it in processor_config.json, which comes first if there are both, as in transformers."""
    path = folder(random_clip(config()))
    wanted = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "shortest"}
    wanted |= {"size": 32, "mode": "RGB", "fill_color": 0, "library": "transformers", "resize": [36, 36]}
    assert open_model(open_checkpoint(path)).preprocess == wanted
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"resample": 3}))
    (path / "processor_config.json").write_text(json.dumps({"image_processor": PREPROCESSOR}))
    assert open_model(open_checkpoint(path)).preprocess == wanted


def test_a_missing_preprocessor_file_is_reported(folder):
    """CLIP's usual preprocessing is assumed at the model's size, and where the configuration is from says so."""
    path = folder(random_clip(config()))
    (path / "preprocessor_config.json").unlink()
    model = open_model(open_checkpoint(path))
    assert "CLIP's default is assumed" in model.architecture
    theirs = transformers.CLIPImageProcessorPil(size=32, crop_size=32)
    image = Image.effect_noise((47, 40), 90).convert("RGB")
    preprocess = Preprocess.of(model.preprocess)
    ours = preprocess.normalise(preprocess.pixels(image))
    assert torch.equal(ours, theirs(image, return_tensors="pt").pixel_values[0])


def test_a_state_dict_alone_is_looked_up_among_open_clips(save):
    """Without config.json the names are converted all the same."""
    large = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12}
    vision, text = large | {"image_size": 224, "patch_size": 32}, large | {"max_position_embeddings": 77}
    settings = config(heads=6, vision=vision, text=text)
    settings.projection_dim = 384
    with torch.device("meta"):
        state = transformers.CLIPModel(settings).state_dict()
    state = {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in state.items()}
    assert fitting(read_names(save(state))).names == ("ViT-S-32",)


def test_a_head_and_a_prefix_change_nothing(save, filled, images):
    """A fine-tuned CLIPModel inside another module gives the same logits."""
    clip = random_clip(config(act="gelu"))
    head = {"classification_head.weight": torch.randn(5, 16), "classification_head.bias": torch.randn(5)}
    cfg = hugging_face_config(clip.config.to_dict(), {})
    checkpoint = save({f"net.{name}": tensor for name, tensor in clip.state_dict().items()} | head, cfg)
    model = filled(open_model(checkpoint), checkpoint)
    with torch.no_grad():
        features = clip.visual_projection(clip.vision_model(pixel_values=images).pooler_output)
        wanted = torch.nn.functional.linear(torch.nn.functional.normalize(features, dim=-1), *head.values())
        torch.testing.assert_close(model.module(images), wanted, rtol=1e-4, atol=1e-4)


def test_old_files_say_some_things_twice():
    """The second of two copies counts, as in transformers."""
    first = {"vision_config": {"hidden_act": "quick_gelu"}, "text_config": {"hidden_act": "quick_gelu"}}
    twice = {f"{key}_dict": {"hidden_act": "gelu"} for key in first}
    assert hugging_face_config(first, {})["model_cfg"]["quick_gelu"]
    assert not hugging_face_config(first | twice, {})["model_cfg"]["quick_gelu"]


@pytest.mark.parametrize(("width", "hidden"), [(1408, 6144), (1664, 8192), (1152, 4304), (768, 3072), (896, 3584)])
def test_the_width_of_hidden_layers_survives_open_clips_ratio(width, hidden):
    """open_clip multiplies the width by the ratio and rounds down."""
    cfg = hugging_face_config({"vision_config": {"hidden_size": width, "intermediate_size": hidden}}, {})
    assert int(width * cfg["model_cfg"]["vision_cfg"]["mlp_ratio"]) == hidden


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config": {"hidden_act": "relu"}}, "no activation 'relu'"),
        ({"vision_config": {"hidden_act": "gelu"}}, "different activations"),
        ({"vision_config": {"num_attention_heads": 0}}, "does not describe a CLIPModel"),
        ({"vision_config": 7}, "does not describe a CLIPModel"),
    ],
)
def test_what_open_clip_cannot_build_is_refused(changes, message, folder):
    """The error gives the reason."""
    path = folder(random_clip(config()))
    (path / "config.json").write_text(json.dumps({"model_type": "clip", **changes}))
    with pytest.raises(ModelError, match=message):
        open_model(open_checkpoint(path))


def test_a_folder_without_its_configuration_asks_for_the_architecture(folder, tmp_path):
    """Neither attention heads nor the activation are guessed."""
    path = folder(random_clip(config()))
    shutil.copy(path / "model.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(ModelError, match="Name it with --model"):
        open_model(open_checkpoint(tmp_path / "alone.safetensors"))
    assert load_file(tmp_path / "alone.safetensors")


def test_a_missing_part_of_a_stacked_tensor_is_refused(save):
    """Query, key and value are one tensor of open_clip's, and two of the three do not suffice."""
    clip = random_clip(config())
    state = clip.state_dict() | {"classification_head.weight": torch.randn(5, 16)}
    del state["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(ModelError, match=r"resblocks.1.attn.in_proj_weight, of which the checkpoint holds only a part"):
        open_model(save(state, hugging_face_config(clip.config.to_dict(), {})))


@pytest.fixture
def classifiers(tmp_path):
    """Two folders of CLIPForImageClassification, whose weights are random."""

    def classifiers(**changes):
        for seed, name in enumerate(("zs", "ft")):
            settings = config(**changes)
            settings.num_labels = 5
            torch.manual_seed(seed)
            classifier = transformers.CLIPForImageClassification(settings)
            for parameter in classifier.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
            classifier.save_pretrained(tmp_path / name)
        return tmp_path / "zs", tmp_path / "ft"

    return classifiers


@pytest.mark.parametrize("changes", [{}, {"act": "gelu", "heads": 4}, {"vision": {"layer_norm_eps": 1e-3}}], ids=str)
def test_classifiers_give_the_logits_of_transformers(changes, classifiers, filled, images, tmp_path):
    """CLIPForImageClassification uses the mean over patches without norm, projection or normalisation."""
    merge(*classifiers(**changes), tmp_path / "out", alpha=0.3)
    theirs = transformers.CLIPForImageClassification.from_pretrained(tmp_path / "out").eval()
    checkpoint = open_checkpoint(tmp_path / "out")
    model = filled(open_model(checkpoint), checkpoint)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), theirs(images).logits, rtol=1e-4, atol=1e-4)
    assert model.head == "own, 5 classes, features not normalised"
    assert "custom: ViT/8, 2 layers, width 64, 32-pixel images, 64 features (from " in model.architecture


def test_a_classifiers_state_dict_takes_the_name_of_its_clip(save, images, filled):
    """Without config.json --model decides; a norm that the logits do not depend on is ignored."""
    large = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
    vision = transformers.CLIPVisionConfig(**large, image_size=224, patch_size=32, hidden_act="gelu")
    settings = transformers.CLIPConfig(vision_config=vision.to_dict(), num_labels=5)
    theirs = transformers.CLIPForImageClassification(settings).eval()
    checkpoint = save(theirs.state_dict())
    with pytest.raises(ModelError, match="Name it with --model"):
        open_model(checkpoint)
    model = filled(open_model(checkpoint, "ViT-S-32"), checkpoint)
    images = torch.nn.functional.interpolate(images, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), theirs(images).logits, rtol=1e-4, atol=1e-4)
    assert not any("post_layernorm" in name for name in model.names)


def siglip(kind):
    """A small one of transformers'."""
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    settings = transformers.SiglipConfig(vision_config=vision | {"image_size": 32, "patch_size": 8}, text_config=text)
    return kind(settings)


@pytest.mark.parametrize("kind", [transformers.SiglipModel, transformers.SiglipForImageClassification])
def test_siglip_is_merged_and_refused_where_images_are_seen(kind, tmp_path):
    """The error names what to use instead, and the merged folder opens in transformers."""
    for name in ("zs", "ft"):
        siglip(kind).save_pretrained(tmp_path / name)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=0.3)
    a, b, out = (kind.from_pretrained(tmp_path / name).state_dict() for name in ("zs", "ft", "out"))
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(out[name], (1 - 0.3) * a[name] + 0.3 * b[name])
    with pytest.raises(ModelError, match="SigLIP.*wise convert.*--to open_clip"):
        open_model(open_checkpoint(tmp_path / "out"))
    assert guess_architecture(open_checkpoint(tmp_path / "out")).reason.startswith("Hugging Face's SigLIP")

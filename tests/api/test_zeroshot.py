"""`zeroshot` builds a classifier from an image encoder and a head made of class names."""

import json

import open_clip
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mergekit_wise.api.merge import merge
from mergekit_wise.api.zeroshot import zeroshot
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError, OutputError, SuiteError
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.zero_shot_head import Prompts

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
CLASSES = ["cat", "red dog", "newt"]


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG).eval()


@pytest.fixture
def source(clip, tmp_path):
    """A checkpoint in half precision with its configuration in the metadata."""
    state = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    clip.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    config = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}})
    save_file(state, tmp_path / "clip.safetensors", {"open_clip_config": config})
    return tmp_path / "clip.safetensors"


def filled(path):
    checkpoint = open_checkpoint(path)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    return model


def own_head(clip, classes, templates):
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    return open_clip.build_zero_shot_classifier(clip, tokenizer, classes, templates).T * clip.logit_scale.exp().detach()


def test_the_file_holds_the_image_tower_and_open_clips_head(clip, source, tmp_path):
    """The file has the image encoder's bytes, open_clip's head in float32 with a bias of 0, and no text encoder."""
    report = zeroshot(source, tmp_path / "zs", classes=CLASSES, templates=["a {}", "the {}."])
    made, state = load_file(tmp_path / "zs"), load_file(source)
    head = made.pop("classification_head.weight")
    torch.testing.assert_close(head, own_head(clip, CLASSES, ["a {}", "the {}."]), rtol=1e-4, atol=1e-5)
    assert torch.equal(made.pop("classification_head.bias"), torch.zeros(3))
    assert made.keys() == {name for name in state if name.startswith("visual.")}
    assert all(tensor.dtype == torch.float16 and torch.equal(tensor, state[name]) for name, tensor in made.items())
    assert (report.classnames, report.templates) == (tuple(CLASSES), ("a {}", "the {}."))
    with safe_open(tmp_path / "zs", "np") as file:
        assert json.loads(file.metadata()["open_clip_config"])["model_cfg"] == CONFIG
        assert json.loads(file.metadata()["classnames"]) == list(report.classnames)


def test_its_logits_are_open_clips_without_any_option(clip, source, tmp_path):
    """The file's logits are open_clip's for images and texts, with no option for model or preprocessing."""
    zeroshot(source, tmp_path / "zs", classes=CLASSES, templates=["{}"])
    model, images = filled(tmp_path / "zs"), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        tokens = open_clip.SimpleTokenizer(context_length=16)(CLASSES)
        wanted = clip.get_logits(images, tokens)[0]
        torch.testing.assert_close(model.module(images), wanted, rtol=1e-4, atol=1e-4)
    assert (model.head, model.preprocess["mean"]) == ("own, 3 classes", [0.5, 0.5, 0.5])


def test_hugging_faces_tower_is_written_under_open_clips_names(tmp_path):
    """A Hugging Face image encoder is converted to open_clip's names, equal to the last bit."""
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    settings = transformers.CLIPConfig(vision_config=size | {"image_size": 32, "patch_size": 8}, text_config=size)
    own = transformers.CLIPModel(settings).half().eval()
    own.save_pretrained(tmp_path / "hub")
    zeroshot(tmp_path / "hub", tmp_path / "zs", classes=CLASSES)
    made, state = load_file(tmp_path / "zs"), own.state_dict()
    layer = "vision_model.encoder.layers.1.self_attn"
    stacked = torch.cat([state[f"{layer}.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(made["visual.transformer.resblocks.1.attn.in_proj_weight"], stacked)
    assert torch.equal(made["visual.proj"], state["visual_projection.weight"].T)
    model, images = filled(tmp_path / "zs"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = own.float().visual_projection(own.vision_model(pixel_values=images).pooler_output)
        torch.testing.assert_close(model.module.encode(images), functional.normalize(features), rtol=1e-4, atol=1e-4)


def test_it_merges_with_a_model_fine_tuned_from_it(source, tmp_path):
    """The classifier merges with a model fine-tuned from it, and the output keeps the architecture."""
    zeroshot(source, tmp_path / "zs", classes=CLASSES)
    with safe_open(tmp_path / "zs", "np") as file:
        metadata = file.metadata()
    tuned = {name: tensor.float() + 0.01 for name, tensor in load_file(tmp_path / "zs").items()}
    save_file(tuned, tmp_path / "ft", metadata)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "merged")
    assert filled(tmp_path / "merged").architecture.startswith("custom: ViT/8")


def test_an_existing_head_is_replaced(clip, source, tmp_path):
    """An existing head for other classes is replaced."""
    state = load_file(source) | {"classification_head.weight": torch.randn(9, 16)}
    config = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}})
    save_file(state, tmp_path / "both", {"open_clip_config": config})
    zeroshot(tmp_path / "both", tmp_path / "zs", classes=CLASSES, templates=["a {}"])
    head = load_file(tmp_path / "zs")["classification_head.weight"]
    torch.testing.assert_close(head, own_head(clip, CLASSES, ["a {}"]), rtol=1e-4, atol=1e-5)


def test_files_of_names_and_prompts_are_read(wise, clip, source, tmp_path):
    """Files have one name or template per line, with {} or clip-benchmark's {c}; the default is one plain template."""
    (tmp_path / "names.txt").write_text("cat\nred dog\nnewt\n")
    (tmp_path / "prompts.txt").write_text("a {}\nthe {c}\n")
    done = wise("zeroshot", source, "--classes", tmp_path / "names.txt", "-o", tmp_path / "plain")
    assert done.exit_code == 0, done.stderr
    assert "3 classes x 1 template," in done.stdout
    assert "from its metadata" in done.stderr
    files = ("--classes", tmp_path / "names.txt", "--templates", tmp_path / "prompts.txt")
    done = wise("zeroshot", source, *files, "-o", tmp_path / "two")
    assert done.exit_code == 0, done.stderr
    for name, templates in (("plain", ["a photo of a {}."]), ("two", ["a {}", "the {}"])):
        head = load_file(tmp_path / name)["classification_head.weight"]
        torch.testing.assert_close(head, own_head(clip, CLASSES, templates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "templates"),
    [({"templates": "simple"}, open_clip.SIMPLE_IMAGENET_TEMPLATES), ({}, open_clip.OPENAI_IMAGENET_TEMPLATES)],
)
def test_imagenets_classes_have_open_clips_names_and_openais_prompts(options, templates, source, tmp_path, monkeypatch):
    """ImageNet's 1000 class names with OpenAI's 80 or 7 templates reach the text encoder."""
    texts = []

    def head(encode, tokens, templates, scale, progress):
        return torch.zeros(len(tokens) // templates, 16), None

    monkeypatch.setattr("mergekit_wise.models.zero_shot_head.zero_shot_head", head)
    monkeypatch.setattr(Prompts, "tokens", lambda self, *_: texts.extend(self.texts) or torch.zeros(len(self.texts), 1))
    monkeypatch.setattr(Prompts, "note", lambda self: "")
    zeroshot(source, tmp_path / "zs", **options, cache=False)
    assert texts == [template(name) for name in open_clip.IMAGENET_CLASSNAMES for template in templates]


def test_openais_templates_are_available_for_any_classes(source, tmp_path):
    """`templates="openai"` selects OpenAI's templates for any classes."""
    report = zeroshot(source, tmp_path / "zs", classes=CLASSES[:1], templates="openai")
    assert len(report.templates) == 80


def test_it_can_be_written_in_the_format_of_torch(source, tmp_path):
    """The name decides about the format; the architecture and class names are found again."""
    zeroshot(source, tmp_path / "zs.safetensors", classes=CLASSES)
    zeroshot(source, tmp_path / "zs.pt", classes=CLASSES)
    wanted, found = (open_checkpoint(tmp_path / name) for name in ("zs.safetensors", "zs.pt"))
    assert found.metadata == wanted.metadata
    loaded = torch.load(tmp_path / "zs.pt", weights_only=True)
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor.tolist() for name, tensor in load_file(tmp_path / "zs.safetensors").items()
    }
    with pytest.raises(OutputError, match=r"ending \.onnx"):
        zeroshot(source, tmp_path / "zs.onnx", classes=CLASSES)


def test_impossible_inputs_are_refused_and_nothing_is_written(source, tmp_path):
    """A missing text encoder, no classes and an output among the inputs are errors, and no file is written."""
    zeroshot(source, tmp_path / "zs", classes=CLASSES)
    with pytest.raises(ModelError, match="no complete text tower"):
        zeroshot(tmp_path / "zs", tmp_path / "again", classes=CLASSES)
    with pytest.raises(SuiteError, match="no such file of class names"):
        zeroshot(source, tmp_path / "again", classes=tmp_path / "none.txt")
    with pytest.raises(OutputError, match="one of the inputs"):
        zeroshot(source, source, classes=CLASSES)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.safetensors", "zs"}

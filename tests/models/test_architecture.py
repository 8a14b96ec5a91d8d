"""A configuration comes from metadata, side files or the layout of the weights, and merged files keep it."""

import json
import pickle
import sys
import types

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors import safe_open

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import CONFIG_KEY, declared_config, guess_architecture, with_declared_config
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.source import open_source

# Tracing warns of its own end and of what it takes for constants; OpenAI's files stay as they are.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Archive(torch.nn.Module):
    """A CLIP as OpenAI scripted it: with its numbers among the tensors."""

    def __init__(self, clip) -> None:
        super().__init__()
        for name, part in clip.named_children():
            self.add_module(name, part)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, value in (("input_resolution", 32), ("context_length", 12), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, image):
        return self.visual(image) * self.logit_scale


@pytest.fixture
def archive(small, build, images, tmp_path):
    """OpenAI's kind of file of a small ViT or ResNet, in half precision where theirs is."""

    def archive(kind="vit"):
        if kind == "resnet":
            small["vision_cfg"] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
        clip = build(small | {"quick_gelu": True})
        script = torch.jit.trace(Archive(clip), images)
        open_clip.model.convert_weights_to_fp16(script)
        torch.jit.save(script.half(), tmp_path / "openai.pt")
        return tmp_path / "openai.pt"

    return archive


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_openais_archives_are_known_by_their_kind(kind, archive, filled, images):
    """open_clip's own loader builds the same towers, temperature and QuickGELU from them."""
    path = archive(kind)
    state = torch.jit.load(path).state_dict()
    theirs = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
    checkpoint = open_checkpoint(path)
    model = filled(open_model(checkpoint), checkpoint)
    assert "OpenAI's CLIP, which uses QuickGELU" in model.architecture
    assert model.preprocess["mean"] == open_clip.OPENAI_DATASET_MEAN
    names, tokenizer = ["cat", "red dog"], open_clip.SimpleTokenizer(context_length=12)
    model.use_head(model.zeroshot_head(names, ["a {}"]))
    with torch.no_grad():
        wanted = theirs.get_logits(images, tokenizer([f"a {name}" for name in names]))[0]
        torch.testing.assert_close(model.module(images), wanted, rtol=1e-3, atol=1e-3)


AUTHORS = types.ModuleType("src.models.modeling")
exec(
    """
import torch
class ImageEncoder(torch.nn.Module): pass
class ClassificationHead(torch.nn.Linear): pass
class ImageClassifier(torch.nn.Module): pass
class CLIPEncoder(torch.nn.Module): pass
""",
    AUTHORS.__dict__,
)


@pytest.fixture
def authors_file(small, build, tmp_path, monkeypatch):
    """A pickled ImageClassifier, whose text transformer is deleted as in the authors' code."""
    for name in ("ImageEncoder", "ClassificationHead", "ImageClassifier"):
        getattr(AUTHORS, name).__module__ = AUTHORS.__name__

    def authors_file(name="authors.pt", *, normalize=True):
        clip = build(small | {"quick_gelu": True})
        del clip.transformer
        classifier, encoder = AUTHORS.ImageClassifier(), AUTHORS.ImageEncoder()
        encoder.model, head = clip, AUTHORS.ClassificationHead(16, 5)
        head.normalize = normalize
        classifier.image_encoder, classifier.classification_head = encoder, head
        with monkeypatch.context() as patch:
            for module in ("src", "src.models", AUTHORS.__name__):
                patch.setitem(sys.modules, module, AUTHORS if module == AUTHORS.__name__ else types.ModuleType(module))
            (tmp_path / name).write_bytes(pickle.dumps(classifier))
            (tmp_path / f"head of {name}").write_bytes(pickle.dumps(head))
        return tmp_path / name, clip, head

    return authors_file


def test_the_wise_ft_authors_files_are_known_by_their_classes(authors_file, filled, images):
    """Their code uses OpenAI's CLIP alone; features are normalised, and the head holds the temperature."""
    path, clip, head = authors_file()
    checkpoint = open_checkpoint(path)
    model = filled(open_model(checkpoint), checkpoint)
    with torch.no_grad():
        wanted = head(torch.nn.functional.normalize(clip.visual(images), dim=-1))
        torch.testing.assert_close(model.module(images), wanted)
    assert "the WiSE-FT authors' code" in model.architecture
    assert model.head == "own, 5 classes"


def test_another_class_of_a_module_of_that_name_shows_nothing(small, build, tmp_path, monkeypatch):
    """FLYP's CLIPEncoder is in such a module, and may hold any model of open_clip's."""
    AUTHORS.CLIPEncoder.__module__ = AUTHORS.__name__
    encoder = AUTHORS.CLIPEncoder()
    encoder.model = build(small)
    with monkeypatch.context() as patch:
        for module in ("src", "src.models", AUTHORS.__name__):
            patch.setitem(sys.modules, module, AUTHORS if module == AUTHORS.__name__ else types.ModuleType(module))
        (tmp_path / "flyp.pt").write_bytes(pickle.dumps(encoder))
    checkpoint = open_checkpoint(tmp_path / "flyp.pt")
    assert any("src.models.modeling.CLIPEncoder" in note for note in checkpoint.notes)
    assert CONFIG_KEY not in checkpoint.metadata
    assert declared_config(checkpoint) is None


@pytest.mark.parametrize("kind", ["pickled", "merged", "head"])
def test_a_head_that_wants_features_as_they_are_gets_them(kind, authors_file, filled, images, tmp_path):
    """The authors' ClassificationHead has a flag for that, which merged files and separate heads keep."""
    path, clip, head = authors_file("raw.pt", normalize=False)
    if kind == "merged":
        merge(authors_file()[0], path, tmp_path / "merged", alpha=1)
    checkpoint = open_checkpoint(tmp_path / "merged" if kind == "merged" else path)
    alone = open_checkpoint(tmp_path / "head of raw.pt") if kind == "head" else None
    model = filled(open_model(checkpoint, head=alone), checkpoint)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), head(clip.visual(images)))
    assert model.head == "own, 5 classes, features not normalised"
    assert checkpoint.metadata["classification_head.normalize"] == "false"


def test_a_flag_on_which_two_files_disagree_is_noted(authors_file, tmp_path):
    """The mixture uses the flag of the fine-tuned model."""
    raw, usual = authors_file("raw.pt", normalize=False)[0], authors_file()[0]
    report = merge(raw, usual, tmp_path / "merged")
    assert any("disagree on 'classification_head.normalize'" in note for note in report.notes)
    assert open_model(open_checkpoint(tmp_path / "merged")).head == "own, 5 classes"


def soup(clip):
    """A state dict of the model-soups authors': everything but the text transformer, and a head."""
    state = {
        f"model.{name}": tensor for name, tensor in clip.state_dict().items() if not name.startswith("transformer")
    }
    return state | {"classification_head.weight": torch.randn(5, 16), "classification_head.bias": torch.randn(5)}


def test_model_soups_are_known_by_what_they_left_out(small, build, tmp_path, filled, images):
    """They use QuickGELU; a complete text tower under the same names is not theirs."""
    clip = build(small | {"quick_gelu": True})
    torch.save(state := soup(clip), tmp_path / "soup.pt")
    checkpoint = open_checkpoint(tmp_path / "soup.pt")
    model = filled(open_model(checkpoint), checkpoint)
    with torch.no_grad():
        features = torch.nn.functional.normalize(clip.visual(images), dim=-1)
        wanted = features @ state["classification_head.weight"].T + state["classification_head.bias"]
        torch.testing.assert_close(model.module(images), wanted)
    assert "model-soups" in model.architecture
    whole = {f"model.{name}": tensor for name, tensor in clip.state_dict().items()}
    torch.save(state | whole, tmp_path / "whole.pt")
    assert declared_config(open_checkpoint(tmp_path / "whole.pt")) is None


def test_quick_gelu_is_not_guessed_from_names_that_others_use_too(small, build, save):
    """Other code than the authors' uses the same names with either activation."""
    state = build(small).state_dict()
    head = {"classification_head.weight": torch.randn(5, 16), "classification_head.bias": torch.randn(5)}
    checkpoint = save({f"image_encoder.model.{name}": tensor for name, tensor in state.items()} | head)
    with pytest.raises(ModelError, match="Name it with --model"):
        open_model(checkpoint)


@pytest.mark.parametrize("source", ["archive", "authors", "folder", "hugging face"])
def test_merged_files_keep_their_sources_configuration(source, small, build, save, archive, authors_file, tmp_path):
    """The merged file declares the configuration of its sources, and their source."""
    cfg = small | {"quick_gelu": True}
    if source == "archive":
        path = archive()
    elif source == "authors":
        path = authors_file()[0]
    else:
        save(build(cfg).state_dict(), name="hub/model.safetensors")
        path = tmp_path / "hub"
        if source == "folder":
            config = {"model_cfg": cfg, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
            (path / "open_clip_config.json").write_text(json.dumps(config))
        else:
            text = {"num_attention_heads": 1, "hidden_size": 64}
            (path / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": text}))
    declared = declared_config(open_checkpoint(path))
    other = tmp_path / "other.safetensors"
    merge(path, path, other if path.is_file() else tmp_path / "merged", alpha=0.5)
    output = other if path.is_file() else tmp_path / "merged" / "model.safetensors"
    with safe_open(output, "np") as file:
        config = json.loads(file.metadata()["open_clip_config"])
    assert config == {**declared.config, "told_by": declared.source}
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(output.read_bytes())
    assert declared_config(open_checkpoint(alone)).config == declared.config
    assert declared.source in declared_config(open_checkpoint(alone)).source


def test_a_tag_of_open_clips_gives_the_configuration(small, build, save, tmp_path, monkeypatch):
    """The tag gives activation and preprocessing; a path is not looked up in the table."""
    checkpoint = save(build(small).state_dict())
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda config: checkpoint.path)
    config = declared_config(open_source("ViT-L-14/laion2b_s32b_b82k")).config
    assert config["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]
    assert config["model_cfg"] == open_clip.get_model_config("ViT-L-14") | {"quick_gelu": False}
    assert declared_config(open_source("ViT-B-32/openai")).config["model_cfg"]["quick_gelu"]
    assert declared_config(open_source(checkpoint.path)) is None


def test_metadata_comes_before_all_else(small, build, save, tmp_path):
    """Metadata that is there is kept unchanged."""
    config = {"model_cfg": small, "preprocess_cfg": {}}
    save(build(small).state_dict(), config, name="hub/model.safetensors")
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "clip"}')
    checkpoint = open_checkpoint(tmp_path / "hub")
    assert declared_config(checkpoint).config == config
    assert with_declared_config(checkpoint) is checkpoint


@pytest.mark.parametrize("text", ["{", "[]", "7", "\udcff", "{" * 100_000])
def test_unreadable_files_next_to_the_weights_are_refused_where_they_matter(text, small, build, save, tmp_path):
    """Evaluating needs them; merging does not."""
    save(build(small).state_dict(), name="hub/model.safetensors")
    (tmp_path / "hub" / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    checkpoint = open_checkpoint(tmp_path / "hub")
    with pytest.raises(ModelError, match=r"config\.json"):
        open_model(checkpoint)
    assert with_declared_config(checkpoint) is checkpoint
    assert "config.json" in guess_architecture(checkpoint).reason


def test_files_next_to_weights_with_a_chosen_name_are_ignored(small, build, save, tmp_path):
    """In a folder of many checkpoints a config.json belongs to no one in particular."""
    checkpoint = save(build(small).state_dict(), name="mine.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert declared_config(checkpoint) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": 1, "preprocess_cfg": {}}'])
def test_unreadable_metadata_is_refused(text, tmp_path):
    """The error names what is unreadable."""
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "x", metadata={"open_clip_config": text})
    with pytest.raises(ModelError, match="no open_clip configuration"):
        declared_config(open_checkpoint(tmp_path / "x"))

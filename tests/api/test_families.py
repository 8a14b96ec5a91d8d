"""Pairs whose files are of different libraries: merged, verified, compared and swept as a pair of one library is."""

import json
import pickle
import re
import sys
import types

import numpy as np
import open_clip
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionModelWithProjection

from mergekit_wise.api.convert import convert
from mergekit_wise.api.diff import diff
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.verify import verify
from mergekit_wise.checkpoint import closing
from mergekit_wise.errors import MismatchError, ModelError, UsageError
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.source import open_source

CFG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 60, "width": 64, "heads": 1, "layers": 1},
}
CONFIG = {"open_clip_config": json.dumps({"model_cfg": CFG, "preprocess_cfg": {}})}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
ONE_SIDED = ("text.*", "text_model.*", "transformer.*", "token_embedding.*", "positional_embedding", "ln_final.*")
ONE_SIDED += ("text_projection*", "logit_scale", "classification_head.*", "*visual_projection.weight")


def state(seed):
    """The weights of a small CLIP, under open_clip's names."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**json.loads(json.dumps(CFG)))
    return {name: tensor + 0.05 * torch.randn(tensor.shape) for name, tensor in model.state_dict().items()}


def hugging_face(state):
    """The same weights as transformers names them, translated by hand."""
    found = {}
    for name, tensor in state.items():
        new = name
        for old, other in (
            (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
            (r"^transformer\.resblocks", "text_model.encoder.layers"),
            (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
            (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
            (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
            (r"^positional_embedding", "text_model.embeddings.position_embedding.weight"),
            (r"^token_embedding", "text_model.embeddings.token_embedding"),
            (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),
            (r"^visual\.ln_post", "vision_model.post_layernorm"),
            (r"^ln_final", "text_model.final_layer_norm"),
            (r"^visual\.proj$", "visual_projection.weight"),
            (r"^text_projection$", "text_projection.weight"),
            (r"\.ln_(\d)\.", r".layer_norm\1."),
            (r"\.attn\.out_proj", ".self_attn.out_proj"),
            (r"\.mlp\.c_fc", ".mlp.fc1"),
            (r"\.mlp\.c_proj", ".mlp.fc2"),
        ):
            new = re.sub(old, other, new)
        if "in_proj_" in new:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                found[new.replace("attn.in_proj_", f"self_attn.{part}_proj.")] = piece
        else:
            found[new] = tensor.T if name in ("visual.proj", "text_projection") else tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write_open_clip(weights, path):
    save_file(weights, path / "model.safetensors", CONFIG)
    return path / "model.safetensors"


def write_hugging_face(weights, path):
    save_file(hugging_face(weights), path / "model.safetensors", {"format": "pt"})
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    vision = {**tower, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
    text = {**tower, "num_hidden_layers": 1, "max_position_embeddings": 12, "vocab_size": 60, "eos_token_id": 2}
    config = {"model_type": "clip", "projection_dim": 16, "vision_config": vision, "text_config": text}
    (path / "config.json").write_text(json.dumps(config))
    return path


def write_openai(weights, path):
    """A TorchScript archive with the numbers that OpenAI's have."""
    model = open_clip.CLIP(**json.loads(json.dumps(CFG)))
    model.load_state_dict(weights)

    class Archive(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in model.named_children():
                self.add_module(name, part)
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, value in (("input_resolution", 32), ("context_length", 12), ("vocab_size", 60)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, image):
            return self.visual(image) * self.logit_scale

    torch.jit.save(torch.jit.trace(Archive().eval(), IMAGES), path / "ViT.pt")
    return path / "ViT.pt"


def write_timm(weights, path):
    """The image tower as timm keeps CLIP's, with the projection as its head."""
    found = {"head.bias": torch.zeros(16), "head.weight": weights["visual.proj"].T.contiguous()}
    for name, tensor in weights.items():
        if name.startswith("visual.") and name != "visual.proj":
            new = name.removeprefix("visual.")
            for old, other in (
                ("conv1", "patch_embed.proj"),
                ("positional_embedding", "pos_embed"),
                ("class_embedding", "cls_token"),
                ("transformer.resblocks", "blocks"),
                ("ln_pre", "norm_pre"),
                ("ln_post", "norm"),
                ("ln_", "norm"),
                ("in_proj_", "qkv."),
                ("out_proj", "proj"),
                ("c_fc", "fc1"),
                ("c_proj", "fc2"),
            ):
                new = new.replace(old, other)
            tensor = tensor[None] if new == "pos_embed" else tensor[None, None] if new == "cls_token" else tensor
            found[new] = tensor
    save_file(found, path / "timm.safetensors")
    return path / "timm.safetensors"


def write_authors(weights, path):
    """A pickled ImageClassifier of the WiSE-FT authors', whose text transformer is deleted."""
    module = types.ModuleType("src.models.modeling")
    for name in ("ImageEncoder", "ClassificationHead", "ImageClassifier"):
        kind = type(name, (torch.nn.Module,), {"__module__": module.__name__})
        setattr(module, name, kind)
    model = open_clip.CLIP(**json.loads(json.dumps(CFG)))
    model.load_state_dict(weights)
    del model.transformer
    classifier, encoder, head = module.ImageClassifier(), module.ImageEncoder(), module.ClassificationHead()
    encoder.model = model
    linear = torch.nn.Linear(16, 5)
    head.weight, head.bias = linear.weight, linear.bias
    classifier.image_encoder, classifier.classification_head = encoder, head
    names = {"src": types.ModuleType("src"), "src.models": types.ModuleType("src.models"), module.__name__: module}
    sys.modules.update(names)
    try:
        (path / "authors.pt").write_bytes(pickle.dumps(classifier))
    finally:
        for name in names:
            del sys.modules[name]
    return path / "authors.pt"


WRITERS = {
    "open_clip": write_open_clip,
    "hugging_face": write_hugging_face,
    "openai": write_openai,
    "timm": write_timm,
    "authors": write_authors,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(kind, seed) -> a file or folder with the weights of that seed."""
    root, found = tmp_path_factory.mktemp("files"), {}
    for kind, write in WRITERS.items():
        for seed in (0, 1):
            folder = root / f"{kind}{seed}"
            folder.mkdir()
            found[kind, seed] = write(state(seed), folder)
    return found


def check(merged, zeroshot, finetuned):
    """A merged file is what its sources give."""
    assert verify(merged, zeroshot=zeroshot, finetuned=finetuned).difference is None


def one_sided(zeroshot, finetuned):
    """Rules that take what only one file holds (a text tower, a head) from there."""
    found = diff(zeroshot, finetuned).missing
    return [f"zs:{name}" for name in found.only_zeroshot] + [f"ft:{name}" for name in found.only_finetuned]


def features(path):
    """The features of images under a checkpoint's weights, as `wise eval` computes them."""
    source = open_source(path)
    with closing(source):
        head = any(name.endswith("classification_head.weight") for name in source.tensors)
        model = open_model(source, None if "open_clip_config" in source.metadata else "ViT-B-32", own_head=head)
        model.set_weights({name: (source.info(name), source.read(name)) for name in model.names})
        with torch.no_grad():
            return model.module.encode(IMAGES)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("ft", WRITERS)
@pytest.mark.parametrize("zs", WRITERS)
def test_a_pair_of_two_libraries_gives_the_features_of_a_pair_of_one(zs, ft, files, tmp_path):
    """The features are those of open_clip's own model with the mixture of the two states."""
    zeroshot, finetuned = files[zs, 0], files[ft, 1]
    out = tmp_path / ("out" if (zeroshot if zs != ft else finetuned).is_dir() else "out.safetensors")
    merge(zeroshot, finetuned, out, alpha=0.3, keep=one_sided(zeroshot, finetuned))
    check(out, zeroshot, finetuned)
    if zs == "timm":  # its names can be merged, but not evaluated
        convert(out, tmp_path / "converted.safetensors", to="open_clip")
        tensors = load_file(tmp_path / "converted.safetensors")
        tower = {name: tensor for name, tensor in tensors.items() if name.startswith("visual.")}
        rest = {name: tensor for name, tensor in state(0).items() if not name.startswith("visual.")}
        out = write_open_clip({**rest, **tower}, tmp_path)
    a, b = state(0), state(1)
    model = open_clip.CLIP(**json.loads(json.dumps(CFG)))
    model.load_state_dict({name: np.float32(0.7) * a[name] + np.float32(0.3) * b[name] for name in a})
    with torch.no_grad():
        wanted = model.eval().encode_image(IMAGES, normalize=True)
    found = features(out)
    torch.testing.assert_close(found / found.norm(dim=-1, keepdim=True), wanted, rtol=1e-5, atol=1e-5)


def test_the_output_has_the_names_and_the_layout_of_the_zero_shot_file(files, tmp_path):
    merge(files["hugging_face", 0], files["open_clip", 1], tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == hugging_face(state(0)).keys()
    assert (tmp_path / "out" / "config.json").is_file()


def test_like_ft_gives_the_fine_tuned_files_names_and_layout(files, tmp_path):
    """The folder that the other side is does not describe the output."""
    merge(files["hugging_face", 0], files["open_clip", 1], tmp_path / "out.safetensors", like="ft")
    assert load_file(tmp_path / "out.safetensors").keys() == state(0).keys()
    check(tmp_path / "out.safetensors", files["hugging_face", 0], files["open_clip", 1])


def test_both_names_of_the_output_give_the_same_numbers(files, tmp_path):
    pair = files["hugging_face", 0], files["open_clip", 1]
    merge(*pair, tmp_path / "zs", alpha=0.4)
    merge(*pair, tmp_path / "ft.safetensors", alpha=0.4, like="ft")
    found = hugging_face(load_file(tmp_path / "ft.safetensors"))
    for name, tensor in load_file(tmp_path / "zs" / "model.safetensors").items():
        assert torch.equal(tensor, found[name]), name


def test_a_sweep_of_two_libraries_agrees_with_merging_and_evaluating(files, tmp_path, wise):
    """The head of the fine-tuned file is on both sides, so that the pair is complete."""
    head = {"classification_head.weight": torch.randn(10, 16), "classification_head.bias": torch.randn(10)}
    folder = write_hugging_face(state(0), tmp_path)
    save_file({**load_file(folder / "model.safetensors"), **head}, folder / "model.safetensors", {"format": "pt"})
    save_file({**state(1), **head}, tmp_path / "ft.safetensors", CONFIG)
    pair = folder, tmp_path / "ft.safetensors"
    report = sweep(*pair, suite="digits", alphas=[0.4], limit=40, save=str(tmp_path / "swept-{alpha}"))
    merge(*pair, tmp_path / "merged", alpha=0.4)
    alone = evaluate(tmp_path / "merged", "digits", limit=40)
    swept = {record.dataset: record.correct for record in report.records}
    assert swept == {record.dataset: record.correct for record in alone.records}
    files = [tmp_path / name / "model.safetensors" for name in ("swept-0.4", "merged")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_fisher_information_goes_by_the_names_of_the_weights_that_it_is_of(files, tmp_path):
    """Each Fisher file has the names of its model; the result is that of a pair of one library."""
    fishers = [{name: tensor.abs() for name, tensor in state(seed).items()} for seed in (2, 3)]
    save_file(hugging_face(fishers[0]), tmp_path / "zs-fisher")
    for number, fisher in enumerate(fishers):
        save_file(fisher, tmp_path / f"fisher{number}")
    mixed, names = (files["hugging_face", 0], files["open_clip", 1]), (tmp_path / "zs-fisher", tmp_path / "fisher1")
    merge(*mixed, tmp_path / "mixed", fisher=names)
    one = (files["open_clip", 0], files["open_clip", 1])
    merge(*one, tmp_path / "one.safetensors", fisher=(tmp_path / "fisher0", tmp_path / "fisher1"))
    wanted = hugging_face(load_file(tmp_path / "one.safetensors"))
    for name, tensor in load_file(tmp_path / "mixed" / "model.safetensors").items():
        assert torch.equal(tensor, wanted[name]), name
    found = verify(tmp_path / "mixed", zeroshot=mixed[0], finetuned=mixed[1], fisher=names)
    assert found.difference is None


def test_numbers_that_only_openais_archive_holds_are_taken_from_it_with_a_note(files, tmp_path):
    report = merge(files["openai", 0], files["open_clip", 1], tmp_path / "out.safetensors")
    assert any("taking 3 buffers" in note and "input_resolution" in note for note in report.notes)
    found = load_file(tmp_path / "out.safetensors")
    assert int(found["context_length"]) == 12
    check(tmp_path / "out.safetensors", files["openai", 0], files["open_clip", 1])


@pytest.mark.parametrize("swapped", [False, True])
def test_counters_that_one_side_lacks_are_taken_from_the_other_with_one_note(swapped, tmp_path):
    """As between files of torch before and after batch-norm layers counted their batches."""
    old = {f"layer{i}.bn.{key}": torch.randn(4) for i in range(20) for key in ("weight", "running_mean")}
    new = {**old, **{f"layer{i}.bn.num_batches_tracked": torch.tensor(i) for i in range(20)}}
    torch.save(old, tmp_path / "old.pt")
    torch.save(new, tmp_path / "new.pt")
    pair = (tmp_path / "new.pt", tmp_path / "old.pt") if swapped else (tmp_path / "old.pt", tmp_path / "new.pt")
    report = merge(*pair, tmp_path / "out.safetensors")
    assert [note for note in report.notes if "buffers" in note and "new.pt" in note]
    assert int(load_file(tmp_path / "out.safetensors")["layer7.bn.num_batches_tracked"]) == 7
    assert diff(*pair).missing.only_zeroshot == diff(*pair).missing.only_finetuned == ()


@pytest.fixture
def heads(tmp_path):
    """A backbone with a head named `classification_head`, and one with the same head named `fc`."""
    tower = {"tower.weight": torch.randn(8, 8)}
    torch.save({**tower, "classification_head.weight": torch.ones(5, 8)}, tmp_path / "zs.pt")
    torch.save({**tower, "fc.weight": 3 * torch.ones(5, 8)}, tmp_path / "ft.pt")
    return tmp_path / "zs.pt", tmp_path / "ft.pt"


@pytest.mark.parametrize(
    "rule", ["ft:fc=classification_head", r"ft:/^fc\.(.*)$/=classification_head.\1", "zs:classification_head=fc"]
)
def test_a_renamed_head_is_mixed(rule, heads, tmp_path):
    out = tmp_path / "out.safetensors"
    report = merge(*heads, out, rename=[rule])
    assert any("renamed 1 tensor" in note for note in report.notes)
    name = "fc.weight" if rule.startswith("zs") else "classification_head.weight"
    assert torch.equal(load_file(out)[name], 2 * torch.ones(5, 8))
    check(out, *heads)
    assert diff(*heads, rename=[rule]).missing.only_zeroshot == ()


def test_a_head_under_another_name_is_not_kept_twice(heads, tmp_path):
    """The error names the option that mixes them, and following it works."""
    with pytest.raises(MismatchError, match="two heads") as caught:
        merge(*heads, tmp_path / "out.safetensors", keep=["zs:classification_head.*", "ft:fc.*"])
    assert not (tmp_path / "out.safetensors").exists()
    advice = re.search(r"`rename` (\S+)", str(caught.value))
    merge(*heads, tmp_path / "out.safetensors", rename=[advice[1]])
    assert load_file(tmp_path / "out.safetensors").keys() == {"tower.weight", "classification_head.weight"}


def test_a_renamed_tensor_need_not_be_in_the_fisher_files(heads, tmp_path):
    """A tensor that neither Fisher file covers is mixed by the plain rule."""
    save_file({"tower.weight": torch.ones(8, 8)}, tmp_path / "fisher")
    out, fishers = tmp_path / "out.safetensors", (tmp_path / "fisher", tmp_path / "fisher")
    merge(*heads, out, rename=["ft:fc=classification_head"], fisher=fishers)
    assert torch.equal(load_file(out)["classification_head.weight"], 2 * torch.ones(5, 8))


@pytest.mark.parametrize("rule", ["fc=head", "ft:fc", "xx:a=b", "ft:/(/=b", "ft:="])
def test_a_rename_that_cannot_be_understood_is_refused(rule, heads, tmp_path):
    with pytest.raises(UsageError, match="rename"):
        merge(*heads, tmp_path / "out.safetensors", rename=[rule])


def test_a_rename_that_fits_no_name_is_refused(heads, tmp_path):
    """Also one whose prefix ends in the middle of a name's part."""
    for rule in ("ft:f=x", "ft:nothing=x"):
        with pytest.raises(UsageError, match="no tensor name"):
            merge(*heads, tmp_path / "out.safetensors", rename=[rule])


def test_a_rename_that_gives_two_tensors_one_name_is_refused(heads, tmp_path):
    with pytest.raises(MismatchError, match="two tensors"):
        merge(*heads, tmp_path / "out.safetensors", rename=["ft:fc=tower"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_adapter_of_a_hugging_face_model_is_applied_to_an_open_clip_file(dtype, files, tmp_path):
    """The weights are those that peft merges; the output has open_clip's names and the base's dtype.

    The adapter changes the queries, which open_clip stacks with keys and values that stay as they are.
    """
    model = CLIPModel.from_pretrained(files["hugging_face", 0], dtype=dtype)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "fc1"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    base = {name: tensor.to(dtype) for name, tensor in state(0).items()}
    save_file(base, tmp_path / "base.safetensors", CONFIG)
    pair = tmp_path / "base.safetensors", tmp_path / "adapter"
    report = merge(*pair, tmp_path / "out.safetensors", alpha=1)
    assert any("under the names of Hugging Face's CLIPModel" in note for note in report.notes)
    wanted = model.merge_and_unload().state_dict()
    merged = load_file(tmp_path / "out.safetensors")
    assert {name: tensor.dtype for name, tensor in merged.items()} == dict.fromkeys(base, dtype)
    found = hugging_face(merged)
    query = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(found[query], hugging_face(base)[query])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=2e-3 if dtype == torch.float16 else 1e-5, atol=1e-4)
    check(tmp_path / "out.safetensors", *pair)


# wise convert


def test_a_folder_for_transformers_loads_there_and_back_again(files, tmp_path):
    """The folder that convert writes is loaded by transformers; converted back, the bytes are the first file's."""
    convert(files["open_clip", 0], tmp_path / "hf", to="hf")
    model, found = CLIPModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(found.values())
    theirs = open_clip.CLIP(**json.loads(json.dumps(CFG))).eval()
    theirs.load_state_dict(state(0))
    tokens = torch.tensor([[58, 3, 9, 59] + 8 * [0], [58, 7, 59] + 9 * [0]])
    with torch.no_grad():
        image, text = theirs.encode_image(IMAGES, normalize=True), theirs.encode_text(tokens, normalize=True)
        wanted = theirs.logit_scale.exp() * image @ text.T
        logits = model.eval()(input_ids=tokens, pixel_values=IMAGES).logits_per_image
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    convert(tmp_path / "hf", tmp_path / "back.safetensors", to="open_clip")
    convert(tmp_path / "back.safetensors", tmp_path / "again", to="hf")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "hf" / "model.safetensors"
    ).read_bytes()
    found = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state(0).items())


def test_a_converted_file_is_evaluated_without_naming_the_model(files, tmp_path):
    convert(files["hugging_face", 0], tmp_path / "x.safetensors", to="open_clip")
    torch.testing.assert_close(features(tmp_path / "x.safetensors"), features(files["hugging_face", 0]))


def test_a_folder_for_open_clip_loads_there(files, tmp_path):
    convert(files["hugging_face", 0], tmp_path / "oc", to="open_clip")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'oc'}")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state(0).items())


def test_a_folder_needs_a_configuration_and_a_file_does_not(files, tmp_path):
    """An open_clip file without metadata does not say which model it is, and no configuration of open_clip's fits."""
    save_file(state(0), tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match="`model`"):
        convert(tmp_path / "bare.safetensors", tmp_path / "hf", to="hf")
    assert not (tmp_path / "hf").exists()
    report = convert(tmp_path / "bare.safetensors", tmp_path / "hf.safetensors", to="hf")
    assert any("configuration" in note for note in report.notes)
    assert load_file(tmp_path / "hf.safetensors").keys() == hugging_face(state(0)).keys()


def test_an_image_encoder_alone_is_a_folder_of_the_class_for_it(tmp_path):
    """transformers finds every tensor; open_clip has no class for it, and a head has a place in neither."""
    tower = {name: tensor for name, tensor in state(0).items() if name.startswith("visual.")}
    save_file(tower, tmp_path / "x.safetensors", CONFIG)
    convert(tmp_path / "x.safetensors", tmp_path / "hf", to="hf")
    _, found = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(found.values())
    with pytest.raises(ModelError, match="no text tower"):
        convert(tmp_path / "x.safetensors", tmp_path / "oc", to="open_clip")
    save_file({**tower, "classification_head.weight": torch.ones(3, 16)}, tmp_path / "y.safetensors", CONFIG)
    for to in ("hf", "open_clip"):
        with pytest.raises(ModelError, match="classification_head.weight"):
            convert(tmp_path / "y.safetensors", tmp_path / f"folder-{to}", to=to)
    assert not list(tmp_path.glob("folder*"))


def test_a_classifier_on_patches_is_no_model_of_another_library(files, tmp_path):
    """Its head takes other features than those of the other library's models."""
    weights = hugging_face({name: tensor for name, tensor in state(1).items() if name.startswith("visual.")})
    del weights["visual_projection.weight"]
    folder = tmp_path / "classifier"
    folder.mkdir()
    save_file({**weights, "classifier.weight": torch.ones(3, 64)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="CLIPForImageClassification"):
        merge(files["open_clip", 0], folder, tmp_path / "out.safetensors")
    with pytest.raises(ModelError, match="CLIPForImageClassification"):
        convert(folder, tmp_path / "out.safetensors", to="open_clip")


def test_names_of_no_known_family_are_refused(heads, tmp_path):
    with pytest.raises(ModelError, match="no known family"):
        convert(heads[0], tmp_path / "x.safetensors", to="hf")


def test_the_command_says_what_it_did(files, tmp_path, wise):
    done = wise("convert", files["open_clip", 0], "-o", tmp_path / "hf", "--to", "hf")
    assert done.exit_code == 0
    assert "translated" in done.stderr
    assert str(tmp_path / "hf") in done.stdout

"""wise fisher: whatever the model, its files hold what automatic differentiation gives image by image."""

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPConfig, CLIPForImageClassification, CLIPModel

import mergekit_wise
from mergekit_wise.api.fisher import fisher
from mergekit_wise.api.merge import merge
from mergekit_wise.errors import MismatchError, ModelError, OutputError, SuiteError

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
}
NAMES = ("ant", "bee", "cat")
COUNT = 4


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of noise, four images of each of three classes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        for number in range(COUNT):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


def pixels(folder, mean=0.5, std=0.25):
    """All images as float32 [N, 3, 32, 32], and their labels."""
    files = sorted(folder.glob("*/*.png"))
    stacked = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])
    return (stacked - mean) / std, [NAMES.index(file.parent.name) for file in files]


def by_hand(module, logits, inputs, labels):
    """The mean over images of the squared gradients of log p(label | image), in float64, by `Tensor.backward`."""
    sums = {name: torch.zeros_like(each, dtype=torch.float64) for name, each in module.named_parameters()}
    for image, label in zip(inputs, labels, strict=True):
        module.zero_grad()
        functional.cross_entropy(logits(image[None]), torch.tensor([label])).backward()
        for name, each in module.named_parameters():
            if each.grad is not None:
                sums[name] += each.grad.double() ** 2
    return {name: (total / len(labels)).float() for name, total in sums.items()}


def clip(path, *, seed=0, head=True):
    """A tiny CLIP as a file, with a head in place of the text tower or as it is."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if head:
        state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
        state["classification_head.weight"], state["classification_head.bias"] = torch.randn(3, 16), torch.randn(3)
    save_file({n: t.contiguous() for n, t in state.items()}, path, {"open_clip_config": json.dumps(CONFIG)})
    return path


def same(found, wanted, names):
    assert found.keys() == set(names)
    largest = max(float(wanted[name].max()) for name in names)
    for name in names:
        assert found[name].dtype == torch.float32
        # The bias of keys has no effect, so its derivative is rounding alone.
        tolerance = max(1e-5 * float(wanted[name].max()), 1e-10 * largest)
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=tolerance, msg=name)


def test_the_empirical_fisher_of_a_clip_is_that_of_backward(images, tmp_path):
    """Image encoder and head, by open_clip's own module and one backward pass for each image."""
    source = clip(tmp_path / "m.safetensors")
    report = fisher(source, tmp_path / "f.safetensors", on=str(images), kind="empirical", workers=0)
    state = load_file(source)
    model, head = open_clip.CLIP(**CONFIG["model_cfg"]).eval(), torch.nn.Linear(16, 3)
    model.load_state_dict({n: t for n, t in state.items() if n.startswith("visual.")}, strict=False)
    head.load_state_dict({"weight": state["classification_head.weight"], "bias": state["classification_head.bias"]})
    module = torch.nn.ModuleDict({"visual": model.visual, "classification_head": head})
    inputs, labels = pixels(images)
    wanted = by_hand(module, lambda x: head(functional.normalize(model.visual(x), dim=-1)), inputs, labels)
    same(load_file(tmp_path / "f.safetensors"), wanted, state)
    assert (report.images, report.tensors) == (3 * COUNT, len(state))


def test_hugging_faces_names_and_parts_are_kept(images, tmp_path):
    """Query, key and value, one tensor in open_clip, have entries of their own, by the gradients of transformers."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, num_labels=3)
    model = CLIPForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "hf")
    found = fisher(tmp_path / "hf", on=str(images), kind="empirical", workers=0)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    inputs, labels = pixels(images, torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1))
    wanted = by_hand(model, lambda x: model(pixel_values=x).logits, inputs, labels)
    unused = {name for name in wanted if "post_layernorm" in name}
    same(found, wanted, {n for n in load_file(tmp_path / "hf/model.safetensors") if n in wanted} - unused)
    assert any("q_proj" in name for name in found)
    assert all("post_layernorm" in name for name in unused)


def test_a_transposed_projection_is_turned_back_and_a_head_from_a_file_is_a_constant(images, tmp_path):
    """The visual_projection of a CLIPModel, transposed in open_clip, keeps its orientation; the text tower has none."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3}
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 16},
        text_config={**text, "vocab_size": 50, "eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 0},
        projection_dim=20,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "hf")
    weight, bias = np.random.default_rng(0).normal(size=(2, 3, 20)).astype(np.float32)[0], np.zeros(3, np.float32)
    np.savez(tmp_path / "head.npz", coef_=weight, intercept_=bias)
    found = fisher(tmp_path / "hf", on=str(images), kind="empirical", workers=0, head=tmp_path / "head.npz")
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    inputs, labels = pixels(images, torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1))

    def logits(x):
        features = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        return functional.normalize(features, dim=-1) @ torch.from_numpy(weight).T

    wanted = by_hand(model, logits, inputs, labels)
    stored = load_file(tmp_path / "hf/model.safetensors")
    same(
        found, wanted, {name for name in stored if name.startswith(("vision_model", "visual_proj")) and name in wanted}
    )
    assert found["visual_projection.weight"].shape == (20, 32)


def test_batch_norm_and_what_timm_keeps_between_images(images):
    """LeViT has batch norms, whose statistics stay and have no entry, and attention biases that it keeps."""
    torch.manual_seed(0)
    model = timm.create_model("levit_128s", num_classes=3).eval()
    with torch.no_grad():
        for each in model.parameters():  # its residual branches begin with a factor of zero
            each += 0.1 * torch.randn_like(each)
    options = {"on": str(images), "model": "timm:levit_128s", "workers": 0, "kind": "empirical", "limit": 2}
    found = fisher(model.state_dict(), **options)
    assert found.keys() == dict(model.named_parameters()).keys()
    statistics = len(model.state_dict()) - len(found)
    assert any(f"{statistics} tensors without Fisher information" in note for note in found.notes)
    biases = [name for name in found if name.endswith("attention_biases")]
    assert biases
    assert all(float(found[name].max()) > 0 for name in biases)
    assert torch.equal(model.state_dict()["stem.conv1.bn.running_var"], torch.ones(16))


def test_every_sum_is_divided_once(images, tmp_path):
    """The work after the last image grows with the number of tensors, not with its square."""
    source = clip(tmp_path / "m.safetensors")
    with Divisions() as divided:
        found = fisher(source, on=str(images), workers=0, limit=1)
    assert 0 < divided.of_float64 <= len(found)


class Divisions(TorchDispatchMode):
    """Counts divisions of whole float64 tensors."""

    of_float64 = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.of_float64 += operation is torch.ops.aten.div.Tensor and args[0].dtype == torch.float64
        return operation(*args, **kwargs or {})


def test_a_zero_shot_head_is_a_constant(images, tmp_path):
    """A CLIP without head has entries for its image encoder alone, which is said; class names change them."""
    source = clip(tmp_path / "m.safetensors", head=False)
    found = fisher(source, on=str(images), workers=0)
    assert found.keys() == {name for name in load_file(source) if name.startswith("visual.")}
    assert any("class names counts as a constant" in note for note in found.notes)
    assert any("logit_scale" in note for note in found.notes)
    other = fisher(source, on=str(images), workers=0, classnames=["dog", "elk", "fox"])
    assert not torch.equal(found["visual.proj"], other["visual.proj"])


def test_the_file_is_reproducible_and_says_how_it_was_made(images, tmp_path, wise):
    """The same bytes whatever the workers, others with another seed; inspect shows the recipe without any path."""
    source = clip(tmp_path / "m.safetensors")
    for name, options in {"a": (), "b": ("--workers", "0"), "c": ("--seed", "1")}.items():
        done = wise("fisher", source, "--on", images, "-o", tmp_path / f"{name}.safetensors", *options)
        assert done.exit_code == 0, done.output
        assert "true Fisher information" in done.stdout
    first, second, third = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert first == second != third
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        record = json.loads(file.metadata()["mergekit_wise_fisher"])
    assert (record["kind"], record["seed"], record["images"]) == ("true", 0, 3 * COUNT)
    assert record["checkpoint"]["name"] == "m.safetensors"
    assert str(tmp_path) not in json.dumps(record)
    assert '"kind": "true"' in wise("inspect", tmp_path / "a.safetensors").stdout.replace("\n", "")
    entry = json.loads(wise("fisher", source, "--on", images, "-o", tmp_path / "d.pt", "--json", "--limit", 2).stdout)
    assert (entry["images"], entry["kind"]) == (2, "true")


def test_merge_and_sweep_take_the_files_and_what_is_in_memory(images, tmp_path, wise):
    """The merge is Matena and Raffel's formula; in memory, and from a sweep, it is the same bytes."""
    sides = [clip(tmp_path / name, seed=seed) for seed, name in enumerate(("zs.safetensors", "ft.safetensors"))]
    files = [tmp_path / f"{side.stem}-fisher.safetensors" for side in sides]
    for side, file in zip(sides, files, strict=True):
        assert wise("fisher", side, "--on", images, "-o", file).exit_code == 0
    out = tmp_path / "out.safetensors"
    assert wise("merge", *sides, "--fisher", *files, "--alpha", "0.3", "-o", out).exit_code == 0
    (a, b), (fa, fb) = ([{n: t.double() for n, t in load_file(each).items()} for each in two] for two in (sides, files))
    for name, tensor in load_file(out).items():
        first, second = 0.7 * fa[name].clamp(min=1e-8), 0.3 * fb[name].clamp(min=1e-8)
        wanted = (first * a[name] + second * b[name]) / (first + second)
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(load_file(out)["visual.proj"].double(), 0.7 * a["visual.proj"] + 0.3 * b["visual.proj"])
    in_memory = merge(*sides, alpha=0.3, fisher=tuple(fisher(side, on=str(images), workers=0) for side in sides))
    assert all(torch.equal(in_memory[name], tensor) for name, tensor in load_file(out).items())
    with pytest.raises(MismatchError, match=r"fisher\[0\].*fisher\[1\].*lack Fisher information on one side"):
        merge(*sides, fisher=({"visual.proj": fa["visual.proj"]}, {"visual.conv1.weight": fb["visual.conv1.weight"]}))
    pattern = str(tmp_path / "swept-{alpha}.safetensors")
    given = ("--fisher", *files, "--alphas", "0,0.3,1", "--suite", images, "--save", pattern)
    done = wise("sweep", *sides, *given, "--results", tmp_path / "r.jsonl", "--workers", "0")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "swept-0.3.safetensors").read_bytes() == out.read_bytes()


def test_a_module_in_memory_gives_what_its_file_gives(images, tmp_path):
    """A timm module and its file; the function is the package's own."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit.r160_in1k", num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    options = {"on": str(images), "model": "timm:test_vit.r160_in1k", "workers": 0, "limit": 3}
    found = mergekit_wise.fisher(model, **options)
    stored = mergekit_wise.fisher(tmp_path / "m.safetensors", **options)
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in found)
    assert all(each.grad is None for each in model.parameters())


def test_what_cannot_be_computed_is_refused(images, tmp_path, wise):
    """Weights that give NaN, a name of another format, an output that is the input, an unreadable image too many."""
    source, broken = clip(tmp_path / "m.safetensors"), tmp_path / "nan.safetensors"
    state = load_file(source)
    state["classification_head.bias"][1] = torch.nan
    save_file(state, broken, {"open_clip_config": json.dumps(CONFIG)})
    with pytest.raises(ModelError, match="logits of .* are infinite or NaN"):
        fisher(broken, tmp_path / "f.safetensors", on=str(images), workers=0)
    assert not (tmp_path / "f.safetensors").exists()
    with pytest.raises(OutputError, match=r"ending \.npz"):
        fisher(source, tmp_path / "f.npz", on=str(images))
    with pytest.raises(OutputError, match="one of the inputs"):
        fisher(source, source, on=str(images))
    bad = tmp_path / "bad"
    for name in NAMES:
        (bad / name).mkdir(parents=True)
        (bad / name / "0.png").write_bytes((images / name / "0.png").read_bytes())
    (bad / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(SuiteError, match=r"1 image is unreadable"):
        fisher(source, on=str(bad), workers=0)
    found = fisher(source, on=str(bad), workers=0, max_bad=1, kind="empirical")
    for name in NAMES[1:]:
        (tmp_path / "good" / name).mkdir(parents=True)
        (tmp_path / "good" / name / "0.png").write_bytes((images / name / "0.png").read_bytes())
    (tmp_path / "good" / "ant").mkdir()
    assert json.loads(found.metadata["mergekit_wise_fisher"])["images"] == 2
    assert any("not counted" in note for note in found.notes)

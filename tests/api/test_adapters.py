"""LoRA adapters as fine-tuned checkpoints, against peft's own `merge_and_unload`."""

import copy
import json

import numpy as np
import open_clip
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mergekit_wise.api.diff import diff
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.inspect import inspect
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.verify import verify
from mergekit_wise.errors import CheckpointError, MismatchError, UsageError
from mergekit_wise.merging import read_origin
from mergekit_wise.models.source import open_source

transformers.utils.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore")

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = VISION | {"vocab_size": 40, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
CLIP = transformers.CLIPConfig(
    vision_config=VISION | {"image_size": 32, "patch_size": 16}, text_config=TEXT, projection_dim=16, num_labels=3
)


def clip():
    return transformers.CLIPModel(CLIP)


def classifier():
    return transformers.CLIPForImageClassification(CLIP)


def gpt2():
    """Its layers are Conv1D, whose weights are [inputs, outputs]; those of c_proj in the attention are square."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=8, bos_token_id=1, eos_token_id=2
        )
    )


def vit():
    """open_clip's, with nn.MultiheadAttention."""
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    return open_clip.CLIP(16, vision, {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1})


def convolutions():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1), torch.nn.Conv1d(4, 4, 5))


CASES = {
    "plain": (clip, {"target_modules": ["q_proj", "fc1"]}),
    "rslora": (clip, {"target_modules": ["q_proj"], "use_rslora": True}),
    "patterns": (
        clip,
        {
            "target_modules": ["q_proj", "v_proj", "fc1"],
            "rank_pattern": {r"vision_model.*q_proj": 2, "fc1": 6},
            "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 3},
        },
    ),
    "biases of the layers": (clip, {"target_modules": ["k_proj"], "bias": "lora_only"}),
    "all biases": (clip, {"target_modules": ["k_proj"], "bias": "all"}),
    "bias of the factor": (clip, {"target_modules": ["k_proj"], "lora_bias": True}),
    "embeddings": (clip, {"target_modules": ["token_embedding", "position_embedding", "patch_embedding"]}),
    "a head": (classifier, {"target_modules": ["q_proj"], "modules_to_save": ["classifier", "post_layernorm"]}),
    "Conv1D": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "tied embedding": (gpt2, {"target_modules": ["wte"]}),
    "attention of torch": (vit, {"target_modules": ["attn", "c_fc"]}),
    "convolutions": (convolutions, {"target_modules": ["0", "1", "2"]}),
    "orthogonal": (clip, {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"}),
}


def save_base(model, path):
    """The model's tensors as a file, without the second names of shared ones."""
    tensors = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    save_file({name: model.state_dict()[name].contiguous() for name in tensors.values()}, path)
    return path


def train(model, folder, **settings):
    """Save a random adapter of the model, which is left as it is; return the adapted model that peft makes of it."""
    settings = {"r": 4, "lora_alpha": 8, "init_lora_weights": False} | settings
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    return adapted


@pytest.fixture
def trained(tmp_path):
    """The name of a case and a dtype -> base file, adapter folder, and the tensors of `merge_and_unload`."""

    def trained(case, dtype=torch.float32):
        torch.manual_seed(0)
        make, settings = CASES[case]
        model = make().to(dtype)
        base = save_base(model, tmp_path / "base.safetensors")
        merged = train(model, tmp_path / "adapter", **settings).merge_and_unload().state_dict()
        return base, tmp_path / "adapter", merged

    return trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_alpha_1_is_what_peft_merges(case, dtype, trained, tmp_path):
    """Alpha 1 gives the tensors of `merge_and_unload`, to rounding, in the base's dtype; alpha 0 the base's bytes."""
    base, adapter, merged = trained(case, dtype)
    before = load_file(base)
    merge(base, adapter, tmp_path / "1", alpha=1.0)
    merge(base, adapter, tmp_path / "0", alpha=0.0)
    merge(base, adapter, tmp_path / "mixed", alpha=0.4)
    ours, mixed = load_file(tmp_path / "1"), load_file(tmp_path / "mixed")
    assert ours.keys() == before.keys()
    changed = 0
    for name, tensor in load_file(tmp_path / "0").items():
        assert torch.equal(tensor, before[name])
        wanted, found = merged[name].double(), ours[name].double()
        # peft rounds the change before it adds it, and then the sum.
        steps = 3 * torch.finfo(ours[name].dtype).eps * (before[name].double().abs() + wanted.abs() + 1)
        assert ((found - wanted).abs() <= steps).all(), name
        between = 0.6 * before[name].double().numpy() + 0.4 * wanted.numpy()
        assert (np.abs(mixed[name].double().numpy() - between) <= steps.numpy()).all(), name
        changed += not torch.equal(ours[name], before[name])
    assert changed > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_updates_are_not_rounded_before_they_are_mixed(dtype, trained, tmp_path):
    """Mixtures in a narrow dtype are the float64 values, rounded once to it."""
    base, adapter, _ = trained("plain", dtype)
    before, factors = load_file(base), load_file(adapter / "adapter_model.safetensors")
    name = "vision_model.encoder.layers.1.mlp.fc1"
    a, b = (factors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
    update = 2 * (b @ a)
    for alpha in (0.01, 0.4, 1.0):
        merge(base, adapter, tmp_path / "out", alpha=alpha)
        found, exact = load_file(tmp_path / "out")[f"{name}.weight"], before[f"{name}.weight"].double() + alpha * update
        assert (found != exact.to(dtype)).double().mean() < 1e-3


@pytest.mark.parametrize("case", ["plain", "a head", "attention of torch"])
def test_a_merged_file_is_verified(case, trained, tmp_path):
    """Provenance records the adapter and its base, by which the file is recomputed; another adapter is found out."""
    base, adapter, _ = trained(case, torch.float16)
    merge(base, adapter, tmp_path / "out", alpha=0.3)
    verdict = verify(tmp_path / "out", zeroshot=base, finetuned=adapter)
    assert verdict.difference is None
    assert not [note for note in verdict.notes if "header" in note]
    origin = read_origin(open_source(tmp_path / "out"))
    assert origin["finetuned"]["name"] == "adapter"
    assert origin["finetuned"]["base"]["header_sha256"] == origin["zeroshot"]["header_sha256"]
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_A" in name)
    save_file({**weights, name: weights[name] + 0.1}, adapter / "adapter_model.safetensors", {"format": "pt"})
    verdict = verify(tmp_path / "out", zeroshot=base, finetuned=adapter)
    assert verdict.difference is not None
    assert [note for note in verdict.notes if "adapter" in note]


def test_two_adapters_are_mixed_by_their_products(tmp_path):
    """With --base, both sides are adapted models, and the mixture is that of their full weights."""
    torch.manual_seed(0)
    model = clip()
    base = save_base(model, tmp_path / "base.safetensors")
    ends = [
        train(model, tmp_path / name, target_modules=modules).merge_and_unload().state_dict()
        for name, modules in (("a", ["q_proj"]), ("b", ["q_proj", "fc2"]))
    ]
    merge(tmp_path / "a", tmp_path / "b", tmp_path / "out", base=base, alpha=0.4)
    for name, tensor in load_file(tmp_path / "out").items():
        assert torch.allclose(tensor, 0.6 * ends[0][name] + 0.4 * ends[1][name], rtol=1e-5, atol=1e-6)
    assert verify(tmp_path / "out", zeroshot=tmp_path / "a", finetuned=tmp_path / "b", base=base).difference is None
    moved = {each.name for each in diff(tmp_path / "a", tmp_path / "b", base=base).movements if not each.equal}
    assert len(moved) == 4 + 4
    with pytest.raises(UsageError, match="to mix two adapters"):
        merge(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    with pytest.raises(UsageError, match="neither"):
        merge(base, base, tmp_path / "out", base=base)
    with pytest.raises(UsageError, match="LoRA adapter"):
        merge(base, tmp_path / "a", tmp_path / "out", base=tmp_path / "b")


def test_a_head_that_the_base_lacks_is_kept_by_a_rule(tmp_path):
    """A tensor of modules_to_save that the base lacks is one of the fine-tuned side alone."""
    torch.manual_seed(0)
    model = classifier()
    merged = train(model, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["classifier"])
    merged = merged.merge_and_unload().state_dict()
    save_file({n: t for n, t in model.state_dict().items() if not n.startswith("classifier")}, tmp_path / "base")
    with pytest.raises(MismatchError, match=r"--keep ft:'classifier\.\*'|--keep 'ft:classifier|classifier"):
        merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", alpha=0.5, keep=("ft:classifier.*",))
    assert torch.equal(load_file(tmp_path / "out")["classifier.weight"], merged["classifier.weight"])


def test_folders_keep_the_base_s_files(tmp_path):
    """The output of a base folder has its configuration, and nothing of the adapter's folder."""
    torch.manual_seed(0)
    model = clip()
    model.save_pretrained(tmp_path / "base")
    train(model, tmp_path / "adapter", target_modules=["q_proj"])
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}
    transformers.CLIPModel.from_pretrained(tmp_path / "out")
    merge(tmp_path / "base" / "model.safetensors", tmp_path / "adapter", tmp_path / "file")
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize("given", ["folder with .bin", "file", "names of adapters"])
def test_adapters_come_in_several_forms(given, trained, tmp_path):
    """The folder may hold a .bin; the file alone may be given; keys may hold the adapter's name."""
    base, adapter, _ = trained("plain")
    merge(base, adapter, tmp_path / "wanted", alpha=0.7)
    file = adapter / "adapter_model.safetensors"
    if given == "folder with .bin":
        torch.save(load_file(file), adapter / "adapter_model.bin")
        file.unlink()
    elif given == "names of adapters":
        save_file({n.replace(".weight", ".default.weight"): t for n, t in load_file(file).items()}, file)
    merge(base, file if given == "file" else adapter, tmp_path / "out", alpha=0.7)
    wanted = load_file(tmp_path / "wanted")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in load_file(tmp_path / "out").items())


@pytest.mark.parametrize("prefix", ["clip.", "wrapped.model."])
def test_a_prefix_of_the_base_is_bridged(prefix, trained, tmp_path):
    """The base's names may have a prefix that the adapter's lack, and the other way round; a note says so."""
    base, adapter, _ = trained("plain")
    merge(base, adapter, tmp_path / "wanted")
    wanted = load_file(tmp_path / "wanted")
    save_file({prefix + name: tensor for name, tensor in load_file(base).items()}, base)
    report = merge(base, adapter, tmp_path / "out")
    assert any(prefix in note for note in report.notes)
    assert all(torch.equal(tensor, wanted[n.removeprefix(prefix)]) for n, tensor in load_file(tmp_path / "out").items())
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(base).items()}, base)
    file = adapter / "adapter_model.safetensors"
    inner = "base_model.model."
    save_file({n.replace(inner, inner + prefix): tensor for n, tensor in load_file(file).items()}, file)
    merge(base, adapter, tmp_path / "out")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in load_file(tmp_path / "out").items())


def test_an_adapter_of_one_tower_changes_that_tower_of_a_clip(tmp_path):
    """CLIPVisionModel's modules have no prefix in transformers 5; those of a whole CLIP have one for each tower."""
    torch.manual_seed(0)
    whole = clip()
    base = save_base(whole, tmp_path / "base.safetensors")
    tower = transformers.CLIPVisionModel(CLIP.vision_config)
    train(tower, tmp_path / "adapter", target_modules=["q_proj"])
    merge(base, tmp_path / "adapter", tmp_path / "out", alpha=1.0)
    before = load_file(base)
    changed = [name for name, tensor in load_file(tmp_path / "out").items() if not torch.equal(tensor, before[name])]
    assert sorted(changed) == [f"vision_model.encoder.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)]


def test_a_sweep_measures_the_merged_files(tmp_path):
    """Each alpha of a sweep over an adapter has the weights and the counts of its merged file, in float16."""
    torch.manual_seed(0)
    config = {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
            "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"size": 32},
    }
    model = open_clip.CLIP(**config["model_cfg"]).half()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("visual.")}
    head = torch.randn(10, 32).half()
    save_file(
        {**tensors, "classification_head.weight": head}, tmp_path / "zs", {"open_clip_config": json.dumps(config)}
    )
    train(model, tmp_path / "adapter", target_modules=["visual.transformer.resblocks.0.mlp.c_fc"], lora_alpha=30)
    report = sweep(
        tmp_path / "zs",
        tmp_path / "adapter",
        alphas=(0, 0.3, 1),
        suite="digits-noisy",
        limit=40,
        save=str(tmp_path / "{alpha}"),
    )
    for record in report.records:
        merge(tmp_path / "zs", tmp_path / "adapter", tmp_path / "one", alpha=record.alpha)
        assert (tmp_path / f"{record.alpha:g}").read_bytes() == (tmp_path / "one").read_bytes()
        (alone,) = evaluate(tmp_path / "one", "digits-noisy", limit=40).records
        assert (record.correct, record.weights, record.key) == (alone.correct, alone.weights, alone.key)
    assert len({record.weights for record in report.records}) == 3


def test_infinities_that_a_narrow_base_cannot_hold_are_counted(trained, tmp_path):
    """An update beyond float16's range is refused, at alpha 1 as between."""
    base, adapter, _ = trained("plain", torch.float16)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1e7}))
    for alpha in (0.5, 1.0):
        with pytest.raises(Exception, match="infinities or NaN from finite"):
            merge(base, adapter, tmp_path / "out", alpha=alpha)


REFUSED = {
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa_niter_4"},
    "OLoRA": {"init_lora_weights": "olora"},
    "LoftQ": {"init_lora_weights": "loftq"},
    "IA3": {"peft_type": "IA3"},
    "AdaLoRA": {"peft_type": "ADALORA"},
    "prompts": {"peft_type": "PROMPT_TUNING"},
    "OFT": {"peft_type": "OFT"},
    "QALoRA": {"use_qalora": True},
    "rows of an embedding": {"trainable_token_indices": [1, 2]},
    "bare parameters": {"target_parameters": ["in_proj_weight"]},
    "another rank": {"r": 5},
    "no number": {"lora_alpha": "8"},
    "a rank that is none": {"rank_pattern": {"q_proj": 0}},
    "an endless pattern": {"rank_pattern": {"(.*)*x": 4}},
    "no pattern": {"alpha_pattern": {"(": 4}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_applied_exactly_is_refused(what, trained, tmp_path):
    """The entry that decides is named, with what to do; nothing is written."""
    base, adapter, _ = trained("plain")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | REFUSED[what]))
    with pytest.raises(CheckpointError, match=r"merge_and_unload|Give the file that peft wrote"):
        merge(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda t, name: t.pop(name + "lora_B.weight"), CheckpointError, "incomplete"),
        (lambda t, name: t.update({name + "lora_B.weight": torch.ones(7, 4)}), MismatchError, r"7, 4"),
        (lambda t, name: t.update({name + "lora_magnitude_vector": torch.ones(3)}), CheckpointError, "magnitude"),
        (lambda t, name: t.update({name + "lora_B.other.weight": torch.ones(3, 4)}), CheckpointError, "several"),
        (lambda t, name: t.update({"base_model.model.new.weight": torch.ones(3)}), CheckpointError, "new.weight"),
        (
            lambda t, name: t.update({f"base_model.model.far.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}),
            MismatchError,
            "far",
        ),
    ],
    ids=["a factor", "a shape", "a vector of DoRA", "two adapters", "an unknown tensor", "an unknown module"],
)
def test_no_tensor_of_an_adapter_is_left_out(change, error, match, trained, tmp_path):
    """Every factor has its partner and its weight, and every other tensor its place, or it is named."""
    base, adapter, _ = trained("plain")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors, "base_model.model.vision_model.encoder.layers.1.mlp.fc1.")
    save_file(tensors, file)
    with pytest.raises(error, match=match):
        merge(base, adapter, tmp_path / "out")


def test_a_square_weight_needs_a_configuration_that_is_right(trained, tmp_path):
    """fan_in_fan_out decides for square weights, and is not believed where the shapes of others contradict it."""
    base, adapter, _ = trained("Conv1D")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fan_in_fan_out": False}))
    with pytest.raises(CheckpointError, match="fan_in_fan_out"):
        merge(base, adapter, tmp_path / "out")


def test_a_later_peft_may_add_the_output_projection_once(trained, tmp_path):
    """Which versions add it twice is known up to now: peft's pull request 3774 would change it."""
    base, adapter, _ = trained("attention of torch")
    file = adapter / "adapter_config.json"
    assert any("twice" in note for note in merge(base, adapter, tmp_path / "out").notes)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_version": "99.0"}))
    with pytest.raises(CheckpointError, match=r"peft 99\.0.*merge_and_unload"):
        merge(base, adapter, tmp_path / "out")


def test_an_adapter_is_not_a_model(trained, tmp_path):
    """Commands that need a model say how to make one, and that advice works."""
    base, adapter, _ = trained("plain")
    for command in (evaluate, open_source):
        with pytest.raises(CheckpointError, match=r"wise merge BASE .* --alpha 1 -o"):
            command(adapter)
    (adapter / "model.safetensors").write_bytes(base.read_bytes())
    with pytest.raises(CheckpointError, match="both"):
        merge(base, adapter, tmp_path / "out")
    merge(base, adapter / "model.safetensors", tmp_path / "out")


def test_inspect_describes_an_adapter(trained, wise, tmp_path):
    """Rank, alpha and targets are shown, also of adapters that cannot be applied."""
    base, adapter, _ = trained("a head")
    found = inspect(adapter).adapter
    assert found.kind == "LoRA"
    assert found.refusal is None
    assert found.settings["r"] == 4
    assert found.settings["modules_to_save"] == ["classifier", "post_layernorm"]
    assert found.parameters == sum(t.numel() for t in load_file(adapter / "adapter_model.safetensors").values())
    assert inspect(base).adapter is None
    assert "wise merge BASE" in wise("inspect", adapter).stdout
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "IA3"}))
    assert inspect(adapter).adapter.refusal
    assert json.loads(wise("inspect", adapter, "--json").stdout)["adapter"]["kind"] == "IA3"


def test_entries_that_are_not_known_are_named(trained, tmp_path):
    """A setting of a later peft is ignored, as peft does, and a note names it."""
    base, adapter, _ = trained("plain")
    file = adapter / "adapter_config.json"
    assert not any("does not know" in note for note in merge(base, adapter, tmp_path / "out").notes)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_tomorrow": 3}))
    assert any("use_tomorrow = 3" in note for note in merge(base, adapter, tmp_path / "out").notes)


def test_a_merged_folder_is_what_peft_makes_of_it(tmp_path):
    """A refused adapter becomes a fine-tuned checkpoint by the advice that is printed."""
    torch.manual_seed(0)
    model = clip()
    model.save_pretrained(tmp_path / "base")
    train(model, tmp_path / "adapter", target_modules=["q_proj"], use_dora=True)
    with pytest.raises(CheckpointError, match="DoRA"):
        merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    base = transformers.CLIPModel.from_pretrained(tmp_path / "base")
    PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    merge(tmp_path / "base", tmp_path / "merged", tmp_path / "out")

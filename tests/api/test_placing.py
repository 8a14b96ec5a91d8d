"""Where a merge writes, and in which format: the name of the output decides, and a folder keeps its library's names."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge, notes_on_memory
from mergekit_wise.checkpoint import BY_NAME, TensorInfo, open_checkpoint
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.merging import TensorPlan, open_backend
from mergekit_wise.models.architecture import CONFIG_KEY
from mergekit_wise.options import MergeOptions


@pytest.fixture
def folders(states, tmp_path):
    """(name of the weights) -> two folders with such weights and a configuration each."""

    def folders(name="model.safetensors"):
        for side, state in zip(("zs", "ft"), states, strict=True):
            (tmp_path / side).mkdir()
            (save_file if name.endswith(".safetensors") else torch.save)(state, tmp_path / side / name)
            (tmp_path / side / "config.json").write_text(json.dumps({"of": side}))
        return tmp_path / "zs", tmp_path / "ft"

    return folders


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
def test_the_name_decides_about_the_format(ending, pair, tmp_path):
    """A torch file holds the tensors of the safetensors file, and torch loads it without running code."""
    merge(*pair, tmp_path / "out.safetensors", alpha=0.3)
    merge(*pair, tmp_path / f"out{ending}", alpha=0.3)
    wanted, found = load_file(tmp_path / "out.safetensors"), torch.load(tmp_path / f"out{ending}", weights_only=True)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert open_checkpoint(tmp_path / f"out{ending}").metadata.keys() >= {"mergekit_wise"}


def test_a_torch_output_in_shards_has_an_index(pair, tmp_path):
    """Shards and index follow the ending, under the names that transformers uses."""
    report = merge(*pair, tmp_path / "pytorch_model.bin", shard_size="4KB")
    assert report.output.name == "pytorch_model.bin.index.json"
    shards = set(json.loads(report.output.read_text())["weight_map"].values())
    assert min(shards) == f"pytorch_model-00001-of-0000{len(shards)}.bin"
    found = {k: v for shard in shards for k, v in torch.load(tmp_path / shard, weights_only=True).items()}
    merge(*pair, tmp_path / "out.safetensors")
    wanted = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_beside_a_folder_the_ending_decides_whether_a_file_is_written(folders, tmp_path):
    """With an ending it is a file, and a note names what it lacks; without, or with a number alone, a folder."""
    sides = folders()
    report = merge(*sides, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").is_file()
    assert any("without config.json" in note for note in report.notes)
    for name in ("out", "out-0.5"):
        merge(*sides, tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"model.safetensors", "config.json"}
    (tmp_path / "made.before").mkdir()
    merge(*sides, tmp_path / "made.before")
    assert (tmp_path / "made.before" / "model.safetensors").is_file()
    with pytest.raises(OutputError, match=r"ending \.gguf.* A name without an ending is a folder, as ft is"):
        merge(*sides, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"),
        ("adapter_model.safetensors", "adapter_model.safetensors"),
        ("open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
        ("pytorch_model.bin", "model.safetensors"),
    ],
)
def test_a_folder_keeps_the_name_that_its_library_looks_for(name, written, folders, tmp_path):
    """Weights in the safetensors format have the name under which the library of the folder finds them."""
    merge(*folders(name), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {written, "config.json"}


def test_the_configuration_is_that_of_the_model_that_is_written(tmp_path):
    """A CLIPModel beside a fine-tuned CLIPVisionModel gives a folder that transformers loads as what it holds."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
    whole, tower = transformers.CLIPModel(config), transformers.CLIPVisionModel(config.vision_config)
    whole.save_pretrained(tmp_path / "whole")
    tower.save_pretrained(tmp_path / "tower")
    keep = tuple(f"zs:{pattern}" for pattern in ("text*", "visual_projection*", "logit_scale"))
    merge(tmp_path / "whole", tmp_path / "tower", tmp_path / "out", keep=keep)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["CLIPModel"]
    _, problems = transformers.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(problems.values())
    declared = open_checkpoint(tmp_path / "out").metadata[CONFIG_KEY]
    assert json.loads(declared)["model_cfg"]["embed_dim"] == 8
    merge(tmp_path / "tower", tmp_path / "whole", tmp_path / "part", only=("vision_model.*",))
    assert json.loads((tmp_path / "part" / "config.json").read_text())["architectures"] == ["CLIPVisionModel"]


def test_an_index_that_is_read_is_not_replaced(pair, tmp_path):
    """Shards are written under other names than those of the input, and its index is an input, too."""
    index = merge(*pair, tmp_path / "out.safetensors", shard_size="4KB").output
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="one of the inputs"):
        merge(index, pair[1], tmp_path / "out.safetensors", shard_size="4KB")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_small_memory_that_costs_minutes_is_noted(pair, tmp_path):
    """A note is given where blocks are so small that their number takes minutes, and not for a small model."""
    size = TensorInfo("w", BY_NAME["F32"], (1 << 33,))
    options = MergeOptions(*pair, tmp_path / "out.safetensors", memory="1MB")
    plan = (TensorPlan(size, "mix", 0.5),)
    assert "takes minutes longer" in next(notes_on_memory(options, replace(open_backend("cpu"), block=2604), plan))
    assert list(notes_on_memory(options, open_backend("cpu"), plan)) == []
    assert not any("memory" in note for note in merge(*pair, tmp_path / "out.safetensors", memory="1MB").notes)


@pytest.mark.parametrize(("memory", "message"), [("10", "10MB"), ("999KB", "at least 1MB")])
def test_memory_for_no_block_is_refused(memory, message, pair, tmp_path):
    """A number without a unit is a typo, and less than a megabyte would take hours."""
    with pytest.raises(UsageError, match=message):
        merge(*pair, tmp_path / "out.safetensors", memory=memory)

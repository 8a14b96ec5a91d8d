"""What is merged loads with the libraries that people load weights with."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError, MismatchError, OutputError

TINY = {
    "projection_dim": 16,
    "text_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 99,
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
}


@pytest.fixture
def folders(tmp_path):
    """Two Hugging Face folders of a small CLIPModel, the second one in shards, with a preprocessor beside it."""
    paths = tmp_path / "zs", tmp_path / "ft"
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(**TINY)).save_pretrained(path, max_shard_size="20KB" if seed else "1GB")
    (paths[1] / "preprocessor_config.json").write_text('{"size": 32}')
    return paths


def test_a_hugging_face_folder_gives_a_folder_that_transformers_loads(folders, tmp_path):
    """Weights are the mixture's; configuration and preprocessor come along."""
    merge(*folders, tmp_path / "out", alpha=0.3)
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    a, b, out = (CLIPModel.from_pretrained(path).state_dict() for path in (*folders, tmp_path / "out"))
    assert out.keys() == a.keys()
    for name, tensor in out.items():
        if tensor.is_floating_point() and not torch.equal(a[name], b[name]):
            assert torch.equal(tensor, (1 - 0.3) * a[name] + 0.3 * b[name])


def test_a_folder_in_shards_loads_too(folders, tmp_path):
    """With the index that transformers expects."""
    merge(*folders, tmp_path / "out", shard_size="20KB")
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    CLIPModel.from_pretrained(tmp_path / "out")


def test_a_folder_is_never_written_over(folders, tmp_path):
    """Neither one that holds something, nor a file; and a failure leaves none behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="already exists"):
        merge(*folders, folders[0])
    with pytest.raises(OutputError, match="does not exist"):
        merge(*folders, tmp_path / "no" / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_open_clip_loads_what_is_merged(tmp_path):
    """``open_clip.create_model(NAME, pretrained=FILE)``."""
    name = "ViT-S-32-alt"
    states = []
    for seed, file in enumerate(("zs", "ft")):
        torch.manual_seed(seed)
        states.append(open_clip.create_model(name).state_dict())
        save_file(states[-1], tmp_path / file)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out.safetensors", alpha=0.3)
    loaded = open_clip.create_model(name, pretrained=str(tmp_path / "out.safetensors")).state_dict()
    weight = "visual.conv1.weight"
    assert torch.equal(loaded[weight], (1 - 0.3) * states[0][weight] + 0.3 * states[1][weight])


def save_both(folder, seed):
    """A folder as open_clip's repositories are: its own weights, and under the usual name timm's of a tower alone."""
    folder.mkdir()
    model_cfg = {**open_clip.get_model_config("ViT-S-32-alt"), "text_cfg": {"layers": 1, "width": 64, "heads": 1}}
    torch.manual_seed(seed)
    state = open_clip.CLIP(**model_cfg).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    save_file({"blocks.0.weight": torch.ones(seed + 1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}}))
    return state


def test_open_clips_weights_are_taken_where_its_configuration_lies(tmp_path, wise):
    """Told, with what was left; the folder that comes out is one that open_clip loads."""
    a, b = (save_both(tmp_path / name, seed) for seed, name in enumerate(("zs", "ft")))
    report = merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=0.3)
    left = "using open_clip_model.safetensors from the folder; ignoring model.safetensors"
    assert [note for note in report.notes if "ignoring" in note] == [f"zs: {left}", f"ft: {left}"]
    assert left in wise("inspect", tmp_path / "zs").stderr
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["open_clip_model.safetensors"]
    out = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").state_dict()
    weight = "visual.conv1.weight"
    assert torch.equal(out[weight], (1 - 0.3) * a[weight] + 0.3 * b[weight])
    sharded = merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "shards", alpha=0.3, shard_size="20MB").output
    assert sharded.name == "model.safetensors.index.json"
    assert torch.equal(
        torch.from_numpy(open_checkpoint(tmp_path / "shards").read(weight).copy()), out[weight].flatten()
    )


def test_weights_that_were_left_are_named_where_nothing_fits(tmp_path):
    """They may be what was meant."""
    save_both(tmp_path / "zs", 0)
    save_file({"blocks.0.weight": torch.ones(1)}, tmp_path / "tower")
    with pytest.raises(MismatchError, match="zs: using open_clip_model.safetensors .* ignoring model.safetensors"):
        merge(tmp_path / "zs", tmp_path / "tower", tmp_path / "out")


@pytest.mark.parametrize("source", ["hf-hub:nobody/nothing", "ViT-B-32/openai"])
def test_what_cannot_be_fetched_is_told(source, tmp_path, monkeypatch):
    """Offline, plainly."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        merge(source, source, tmp_path / "out")


def test_a_name_that_is_no_tag_is_a_missing_file(tmp_path):
    """Even though it looks like one."""
    with pytest.raises(CheckpointError, match="no such file"):
        merge("ViT-B-32/nonsense", "x/y", tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://example.org/models/zs.pt", "hf-hub:ORG/NAME"),
        ("https://huggingface.co/openai/clip-vit/resolve/main/x.bin", "hf-hub:openai/clip-vit"),
        ("https://hf.co/laion/CLIP.v-2", "hf-hub:laion/CLIP.v-2"),
        ("hf://timm/vit", "hf-hub:timm/vit"),
        ("s3://bucket/zs.pt", "hf-hub:ORG/NAME"),
    ],
)
def test_a_url_is_no_checkpoint(url, advice, pair, tmp_path):
    """Plainly, on either side, with the name by which the hub's can be fetched."""
    for sources in ((url, pair[1]), (pair[0], url)):
        with pytest.raises(CheckpointError) as refused:
            merge(*sources, tmp_path / "out")
        assert str(refused.value).startswith(f"{url}: URLs are not supported. Download the file")
        assert str(refused.value).endswith(f": {advice}")

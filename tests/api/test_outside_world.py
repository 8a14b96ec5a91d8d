"""Merged checkpoints load in transformers and open_clip; files of the hub and URLs as inputs."""

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
    """Two Hugging Face folders of a small CLIPModel; the second is in shards and has a preprocessor."""
    paths = tmp_path / "zs", tmp_path / "ft"
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(**TINY)).save_pretrained(path, max_shard_size="20KB" if seed else "1GB")
    (paths[1] / "preprocessor_config.json").write_text('{"size": 32}')
    return paths


def test_a_hugging_face_folder_gives_a_folder_that_transformers_loads(folders, tmp_path):
    """The output folder has the merged weights and the input's configuration and preprocessor."""
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
    """A folder in several shards has the index that transformers expects."""
    merge(*folders, tmp_path / "out", shard_size="20KB")
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    CLIPModel.from_pretrained(tmp_path / "out")


def test_an_existing_folder_is_never_overwritten(folders, tmp_path):
    """An existing folder as output is refused, and a failed merge creates none."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="one of the inputs"):
        merge(*folders, folders[0])
    with pytest.raises(OutputError, match="does not exist"):
        merge(*folders, tmp_path / "no" / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_open_clip_loads_the_merged_file(tmp_path):
    """``open_clip.create_model(NAME, pretrained=FILE)`` loads the merged weights."""
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
    """Write a folder like open_clip's repositories: its own weights, and timm's image encoder under the usual name."""
    folder.mkdir()
    model_cfg = {**open_clip.get_model_config("ViT-S-32-alt"), "text_cfg": {"layers": 1, "width": 64, "heads": 1}}
    torch.manual_seed(seed)
    state = open_clip.CLIP(**model_cfg).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    save_file({"blocks.0.weight": torch.ones(seed + 1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}}))
    return state


def test_open_clips_weights_are_used_beside_its_configuration(tmp_path, wise):
    """open_clip's weights are used, a note names the ignored file, and open_clip loads the output folder."""
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
    assert sharded == tmp_path / "shards"
    assert (sharded / "model.safetensors.index.json").is_file()
    assert torch.equal(
        torch.from_numpy(open_checkpoint(tmp_path / "shards").read(weight).copy()), out[weight].flatten()
    )


def test_a_mismatch_names_the_ignored_weights(tmp_path):
    """A mismatch names the weights that were ignored, as they may be the intended ones."""
    save_both(tmp_path / "zs", 0)
    save_file({"blocks.0.weight": torch.ones(1)}, tmp_path / "tower")
    with pytest.raises(MismatchError, match="zs: using open_clip_model.safetensors .* ignoring model.safetensors"):
        merge(tmp_path / "zs", tmp_path / "tower", tmp_path / "out")


@pytest.mark.parametrize("source", ["hf-hub:nobody/nothing", "ViT-B-32/openai"])
def test_a_failed_download_is_an_error(source, tmp_path, monkeypatch):
    """A checkpoint of the hub that cannot be downloaded is a CheckpointError."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        merge(source, source, tmp_path / "out")


def test_an_unknown_pretrained_tag_is_a_missing_file(tmp_path):
    """A name like MODEL/TAG with an unknown tag is reported as a missing file."""
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
def test_a_url_is_refused_with_the_name_on_the_hub(url, advice, pair, tmp_path):
    """A URL on either side is refused, with the hf-hub: name that would download it."""
    for sources in ((url, pair[1]), (pair[0], url)):
        with pytest.raises(CheckpointError) as refused:
            merge(*sources, tmp_path / "out")
        assert str(refused.value).startswith(f"{url}: URLs are not supported. Download the file")
        assert str(refused.value).endswith(f": {advice}")

"""Tests of folders as on the Hugging Face Hub."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.checkpoint.folder import other_weights, weights_in
from mergekit_wise.errors import CheckpointError


def filled(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_the_usual_name_is_taken_before_others(tmp_path):
    """As in transformers, a whole file is preferred to an index, safetensors to a pickle; a usual name to any other."""
    folder = filled(tmp_path, "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "a.safetensors")
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "a.safetensors"):
        assert weights_in(folder).name == name
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("beside", "taken"),
    [
        (["config.json"], "model.safetensors"),
        (["config.json", "open_clip_config.json"], "open_clip_model.safetensors"),
        (["open_clip_config.json"], "open_clip_model.safetensors"),
        ([], "model.safetensors"),
    ],
    ids=str,
)
def test_of_several_weights_those_are_taken_that_a_configuration_describes(beside, taken, tmp_path):
    """open_clip's repositories also hold transformers' weights, or timm's of the image encoder alone."""
    folder = filled(tmp_path, "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", *beside)
    found = weights_in(folder)
    assert found.name == taken
    others = {"model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"} - {taken}
    assert set(other_weights(folder, found)) == others
    for name in others:
        (folder / name).unlink()
    assert weights_in(folder) == found
    assert other_weights(folder, found) == []


def test_a_configuration_of_open_clips_asks_for_no_other_weights(tmp_path):
    """A folder with open_clip's configuration and transformers' weights alone gives the latter, which are converted."""
    assert weights_in(filled(tmp_path, "open_clip_config.json", "model.safetensors")).name == "model.safetensors"


def test_a_name_of_its_own_is_taken_if_it_is_the_only_one(tmp_path):
    """One file with an unusual name is used, two are refused, and a folder does not count as a file."""
    folder = filled(tmp_path / "one", "mine.safetensors", "notes.txt")
    (folder / "older.safetensors").mkdir()
    assert weights_in(folder).name == "mine.safetensors"
    filled(folder, "other.safetensors")
    with pytest.raises(CheckpointError, match=r"mine\.safetensors, other\.safetensors"):
        weights_in(folder)


def test_weights_of_diffusers_are_found(tmp_path):
    """diffusers has names of its own, also for several files."""
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"):
        assert weights_in(filled(tmp_path / name, "config.json", name)).name == name


def test_the_subfolder_that_sentence_transformers_names_is_read(tmp_path):
    """modules.json names the folder of the weights, never one outside; a note says so."""
    modules = tmp_path / "modules.json"
    (tmp_path / "model" / "0_CLIPModel").mkdir(parents=True)
    save_file({"w": torch.ones(2)}, tmp_path / "model" / "0_CLIPModel" / "model.safetensors")
    modules = tmp_path / "model" / "modules.json"
    modules.write_text(json.dumps([{"idx": 0, "path": "0_CLIPModel"}]))
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.path == tmp_path / "model"
    assert checkpoint.tensors.keys() == {"w"}
    assert any("0_CLIPModel" in note for note in checkpoint.notes)
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    for outside in ("..", "../", "/", str(tmp_path), "0_CLIPModel/..", 5):
        modules.write_text(json.dumps([{"path": outside}]))
        with pytest.raises(CheckpointError, match="a folder without weights"):
            open_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("folder", ["snapshot", "models--openai--clip/snapshots/abc"])
def test_a_link_that_leads_nowhere_is_an_interrupted_download(folder, tmp_path):
    """The error names the link, its goal, and the command that downloads the file, if the path shows the repository."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "model.safetensors").symlink_to("../blobs/gone")
    for path in (tmp_path / folder, tmp_path / folder / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: a link to \.\./blobs/gone") as caught:
            open_checkpoint(path)
        assert ("hf download openai/clip" in str(caught.value)) == folder.startswith("models")

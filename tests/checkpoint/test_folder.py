"""Tests of folders as on the Hugging Face Hub."""

import pytest

from mergekit_wise.checkpoint.folder import other_weights, weights_in
from mergekit_wise.errors import CheckpointError


def filled(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_the_usual_name_is_taken_before_others(tmp_path):
    """An index is preferred to a whole file, safetensors to a pickle, and a usual name to any other."""
    folder = filled(tmp_path, "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "a.safetensors")
    for name in ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "a.safetensors"):
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
    with pytest.raises(CheckpointError, match="Give the path of the checkpoint file"):
        weights_in(folder)

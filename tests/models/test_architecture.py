"""The architecture, told by names and shapes."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import guess_architecture, named_config, stored_config


def checkpoint_of(name, tmp_path):
    """The names and shapes of an open_clip model, as a file of bytes that take no place."""
    with torch.device("meta"):
        state = open_clip.CLIP(**open_clip.get_model_config(name)).state_dict()
    save_file({k: torch.zeros(v.shape, dtype=torch.bool) for k, v in state.items()}, tmp_path / "x")
    return open_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("ViT-B-32", ("ViT-B-32", "ViT-B-32-quickgelu")),
        ("ViT-S-16", ("ViT-S-16",)),
        ("RN50-quickgelu", ("RN50", "RN50-quickgelu")),
    ],
)
def test_open_clips_own_models_are_found(name, names, tmp_path):
    """What cannot be told apart by shapes is listed, with the reason, and never guessed."""
    guess = guess_architecture(checkpoint_of(name, tmp_path))
    assert guess.names == names
    assert ("cannot be seen in the weights" in guess.reason) == (len(names) > 1)


def test_an_unknown_tower_is_unknown(tmp_path):
    """And why is said."""
    save_file({"w": torch.zeros(1)}, tmp_path / "x")
    guess = guess_architecture(open_checkpoint(tmp_path / "x"))
    assert guess.names == ()
    assert "visual.conv1.weight" in guess.reason


def test_metadata_tells_the_architecture(tmp_path):
    """In the form of open_clip_config.json."""
    config = {"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {"size": 8}}
    save_file({"w": torch.zeros(1)}, tmp_path / "x", metadata={"open_clip_config": json.dumps(config)})
    checkpoint = open_checkpoint(tmp_path / "x")
    assert stored_config(checkpoint) == config
    assert "metadata" in guess_architecture(checkpoint).reason


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_cfg": {}}'])
def test_unreadable_metadata_is_refused(text, tmp_path):
    """With the file's path."""
    save_file({"w": torch.zeros(1)}, tmp_path / "x", metadata={"open_clip_config": text})
    with pytest.raises(ModelError, match="no open_clip configuration"):
        stored_config(open_checkpoint(tmp_path / "x"))


def test_a_name_that_open_clip_does_not_know_is_answered_with_close_ones():
    """A slip in a name is the usual case."""
    assert named_config("RN50")["model_cfg"] == open_clip.get_model_config("RN50")
    with pytest.raises(ModelError, match="Close to it: ViT-B-32"):
        named_config("ViT-B32")

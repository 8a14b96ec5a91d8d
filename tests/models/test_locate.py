"""Tests of the names that checkpoints are given by."""

from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest

from mergekit_wise.errors import CheckpointError
from mergekit_wise.models.source import locate


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("openai/clip-vit-base-patch32", ["hf-hub:openai/clip-vit-base-patch32"]),
        ("ViT-B-32/foo", open_clip.list_pretrained_tags_by_model("ViT-B-32")),
        ("ViT-B-32", ["openai", "ViT-B-32/TAG"]),
        ("ViT-B/32", ["'ViT-B-32/openai'"]),
        ("VitB-32/openai", ["'ViT-B-32'"]),
    ],
)
def test_a_name_that_is_nothing_gets_what_is_close_to_it(source, words):
    """The error lists repositories, tags and models that may be meant."""
    with pytest.raises(CheckpointError, match="no such file") as caught:
        locate(source)
    assert all(word in str(caught.value) for word in words)


def test_a_path_that_does_not_exist_is_a_path():
    """A file's name in a folder that is not there is not taken for a repository."""
    assert locate("nowhere/model.safetensors") == Path("nowhere/model.safetensors")


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/etc/x.json", "..\\x.json", "C:x.json"])
def test_a_hub_that_lists_a_file_outside_the_folder_is_refused(name, monkeypatch):
    """Nothing is downloaded."""
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors"), SimpleNamespace(rfilename=name)])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(CheckpointError, match="outside its folder"):
        locate("hf-hub:someone/model")

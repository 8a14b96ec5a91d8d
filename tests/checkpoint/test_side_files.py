"""Tests of the files that are copied beside merged weights."""

import json

import pytest

from mergekit_wise.checkpoint.side_files import side_files


def filled(folder, *names):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_what_goes_with_the_weights_is_all_but_weights(tmp_path):
    """The files copied with the weights are configuration and tokenizer, and no weights, hidden files or folders."""
    filled(tmp_path, "config.json", "merges.txt", "tokenizer.json", ".gitattributes")
    filled(tmp_path, "model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.safetensors.index.json")
    filled(tmp_path / "onnx", "config.json")
    found = side_files(tmp_path)
    assert found.copies == {name: tmp_path / name for name in ("config.json", "merges.txt", "tokenizer.json")}
    assert found.notes == ()


def test_the_subfolders_of_sentence_transformers_are_copied(tmp_path):
    """Subfolders that modules.json names are copied whole; weights in them are not merged, and a note says so."""
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "../outside"}, {"path": "/etc"}, 5]
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "modules.json").write_text(json.dumps(modules))
    filled(tmp_path / "outside", "secret")
    filled(tmp_path / "st" / "1_Pooling", "config.json")
    filled(tmp_path / "st" / "2_Dense", "config.json", "model.safetensors")
    filled(tmp_path / "st" / "other", "x")
    found = side_files(tmp_path / "st")
    names = ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    assert list(found.copies) == names
    assert found.notes == ("copied from st, not merged: 2_Dense/model.safetensors",)


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 100_000, '[{"path": "a\\u0000"}]', '[{"path": 1}]'])
def test_a_list_of_modules_that_cannot_be_read_names_none(text, tmp_path):
    """modules.json is a file like any other, which is copied as it is."""
    (tmp_path / "modules.json").write_text(text)
    assert list(side_files(tmp_path).copies) == ["modules.json"]


def test_a_link_to_somewhere_else_is_not_copied(tmp_path):
    """A folder from a stranger cannot bring files of this machine into the output; a note names what was left out."""
    filled(tmp_path, "private")
    folder = filled(tmp_path / "model", "config.json")
    (folder / "vocab.json").symlink_to(tmp_path / "private")
    (folder / "same.json").symlink_to("config.json")
    found = side_files(folder)
    assert list(found.copies) == ["config.json", "same.json"]
    assert found.notes == ("not copied, because they are links to somewhere else: vocab.json",)


def test_links_of_the_hubs_cache_are_copied(tmp_path):
    """The cache keeps each file as a link to its content, among the blobs of the same repository."""
    blobs = filled(tmp_path / "models--a--b" / "blobs", "0123")
    filled(tmp_path / "models--c--d" / "blobs", "4567")
    snapshot = filled(blobs.parent / "snapshots" / "abc")
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "other.json").symlink_to("../../../models--c--d/blobs/4567")
    assert list(side_files(snapshot).copies) == ["config.json"]

"""The names of a head's classes are found wherever they are declared, and stay with the weights."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.source import open_source

NAMES = ["cat", "dog", "emu"]
HEAD = {"visual.proj": torch.zeros(4, 4), "classification_head.weight": torch.randn(3, 4)}


def names_of(source):
    return declared_class_names(open_source(source))


def folder(path, **files):
    """A folder of weights with files next to them."""
    path.mkdir()
    save_file(HEAD, path / "model.safetensors")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("_", ".")).write_text(text)
    return path


@pytest.mark.parametrize(
    "files",
    [
        {"config_json": {"id2label": {"0": "cat", "2": "emu", "1": "dog"}}},
        {"config_json": {"architecture": "resnet18", "pretrained_cfg": {}, "label_names": NAMES}},
        {"config_json": {"architecture": "resnet18", "pretrained_cfg": {"label_names": NAMES}}},
        {"classnames_txt": "cat\r\ndog\r\nemu\r\n"},
    ],
)
def test_files_next_to_the_weights_name_the_classes(files, tmp_path):
    """transformers' id2label, timm's label_names and classnames.txt are read, and a merged file inherits the names."""
    first, second = (folder(tmp_path / name, **files) for name in ("zs", "ft"))
    assert names_of(first) == tuple(NAMES)
    merge(first, second, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "np") as file:
        assert json.loads(file.metadata()["classnames"]) == NAMES


@pytest.mark.parametrize(
    "labels",
    [{"0": "LABEL_0", "1": "LABEL_1"}, {"0": "cat", "2": "dog"}, {"0": "cat", "1": 3}, {}, "cat", ["cat"]],
)
def test_defaults_and_damaged_labels_are_no_names(labels, tmp_path):
    """transformers writes LABEL_0 ... where nobody gave names."""
    assert names_of(folder(tmp_path / "x", config_json={"id2label": labels})) is None


def test_metadata_that_holds_no_names_is_said(tmp_path):
    """A damaged entry is not used, and a note says so; the weights can be used all the same."""
    save_file(HEAD, tmp_path / "x.safetensors", {"classnames": "[1, 2"})
    opened = open_source(tmp_path / "x.safetensors")
    assert declared_class_names(opened) is None
    assert any("'classnames'" in note for note in opened.notes)


def test_a_file_with_a_name_of_its_own_has_no_files_beside_it(tmp_path):
    """What lies in the same folder belongs to other weights."""
    folder(tmp_path / "x", config_json={"id2label": {"0": "cat"}})
    save_file(HEAD, tmp_path / "x" / "mine.safetensors")
    assert names_of(tmp_path / "x" / "mine.safetensors") is None

"""Tests of files that are not checkpoints."""

import os

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError


def test_the_content_decides_and_not_the_extension(tmp_path):
    """A torch.save file with the extension of safetensors is read as a torch.save file."""
    torch.save({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path / "x.safetensors").kind == "torch.save zip"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"<html>404: Not Found</html>", "a web page"),
        (b"\x01\x02\x03", "neither a safetensors file nor"),
        (b"PK\x03\x04", "not a readable torch.save file"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_its_path(content, message, tmp_path):
    """The error names the file and the reason."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    """A folder without weights is not opened as a file."""
    with pytest.raises(CheckpointError, match="a folder"):
        open_checkpoint(tmp_path)


def test_a_pipe_is_refused(tmp_path):
    """A pipe is refused without being opened, which would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="a device or a pipe"):
        open_checkpoint(tmp_path / "pipe")


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_safetensors_header_may_begin_as_a_pickle_does(length, tmp_path):
    """Headers of these lengths begin with the bytes 80 02 to 80 05, as pickles of protocols 2 to 5."""
    save_file({"w": torch.ones(2)}, tmp_path / "file", {"padding": "x" * (length - 120)})
    content = (tmp_path / "file").read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip()
    (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + header.ljust(length) + content[-8:])
    assert open_checkpoint(tmp_path / "file").kind == "safetensors"

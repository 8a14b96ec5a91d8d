"""Tests of files and folders of other kinds: the error says what they are, and what to give instead."""

import bz2
import gzip
import io
import lzma
import pickle
import shlex
import subprocess
import sys
import tarfile
import zipfile

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed import checkpoint as dcp

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def saved():
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "opy or download it again" not in message
    return message


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "pointer of Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>x</title>", "web page", "/resolve/"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML", "AccessDenied"),
        (b'{"error": "Repository not found"}', "JSON", "Repository not found"),
        (b'{"model_type": "clip", "text_config": {}}', "configuration", "Give the folder"),
        (b"GGUF\3\0\0\0" + bytes(64), "GGUF", "PyTorch or safetensors checkpoint"),
        (b"\x08\x08\x12\x07pytorch" + bytes(40), "ONNX", "PyTorch or safetensors checkpoint"),
        (b"\x08\x01\x12\xff\x01" + bytes(40), "SavedModel", "PyTorch or safetensors checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5", "h5py"),
        (b"\x81\xa6params\x81\xa5dense\x80", "msgpack", "msgpack_restore"),
        (gzip.compress(saved()), "gzip", "gzip -d"),
        (bz2.compress(saved()), "bzip2", "bzip2 -d"),
        (lzma.compress(saved()), "xz", "xz -d"),
        (b"\x28\xb5\x2f\xfd\x24\x00", "zstd", "zstd -d"),
        (b"%PDF-1.7\n", "PDF", "path of a checkpoint"),
        (b"Entry not found", "a text", "Entry not found"),
        (pickle.dumps({"a": np.ones(2)}, protocol=0), "protocol 0 or 1", "pickle.load"),
        (pickle.dumps({"a": np.ones(2)}, protocol=1), "protocol 0 or 1", "pickle.load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_named(content, what, advice, tmp_path):
    """The first bytes decide; damage is not blamed."""
    (tmp_path / "file.pt").write_bytes(content)
    message = refusal(tmp_path / "file.pt")
    assert what in message
    assert advice in message


def numpy_arrays(path):
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in STATE.items()})


def joblib_file(path, compress=0):
    joblib.dump({name: tensor.numpy() for name, tensor in STATE.items()}, path, compress=compress)


def exported(path):
    module = nn.ModuleDict({"a": nn.Linear(3, 2)})["a"]
    torch.export.save(torch.export.export(module, (torch.ones(1, 3),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (numpy_arrays, "NumPy arrays"),
        (joblib_file, "joblib"),
        (lambda path: joblib_file(path, compress=3), "zlib"),
        (exported, "torch.export"),
    ],
    ids=["npz", "joblib", "compressed joblib", "exported program"],
)
def test_the_command_that_the_error_names_converts_the_file(write, what, tmp_path):
    """The command gives a checkpoint that opens; a state dict keeps its names."""
    write(tmp_path / "file")
    message = refusal(tmp_path / "file")
    assert what in message
    command = shlex.split(message[message.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    names = {"weight", "bias"} if what == "torch.export" else STATE.keys()
    assert open_checkpoint(tmp_path / "OUT.pt").tensors.keys() == names


def test_an_archive_of_a_checkpoint_is_named_with_what_is_in_it(tmp_path):
    """Zip and tar archives name the file to unpack; a damaged file of torch.save is no archive."""
    (tmp_path / "inner.pt").write_bytes(saved())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "inner.pt", "inner.pt")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "inner.pt", "inner.pt")
    assert "inner.pt" in refusal(tmp_path / "x.zip")
    assert "unzip" in refusal(tmp_path / "x.zip")
    assert "tar -xf" in refusal(tmp_path / "x.tar")
    (tmp_path / "cut.pt").write_bytes(saved()[:-100])
    with pytest.raises(CheckpointError, match="copy or download it again"):
        open_checkpoint(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (STATE["a.weight"], ("a single tensor of shape [2, 3]", "'NAME'")),
        ("text", ("a str",)),
    ],
    ids=["tensor", "text"],
)
def test_another_object_in_a_whole_file_is_no_damage(content, words, tmp_path):
    """The error says what the object is, and how to save weights."""
    torch.save(content, tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert all(word in message for word in words)


def test_a_distributed_checkpoint_is_named_with_the_command_that_converts_it(tmp_path):
    """The command gives a checkpoint of the same tensors."""
    dcp.save(STATE, checkpoint_id=tmp_path / "dcp", no_dist=True)
    message = refusal(tmp_path / "dcp")
    command = shlex.split(message[message.index("python -m torch.distributed") :])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert open_checkpoint(tmp_path / "OUT.pt").tensors.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["saved_model.pb"], "SavedModel"),
        (["model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001", "checkpoint"], "checkpoint of TensorFlow"),
        (["_CHECKPOINT_METADATA"], "Orbax"),
        (["zero_to_fp32.py", "latest"], "zero_to_fp32.py"),
        (["tf_model.h5", "flax_model.msgpack"], "flax_model.msgpack, tf_model.h5"),
    ],
)
def test_a_folder_of_another_kind_is_named(names, what, tmp_path):
    """The names of its files decide."""
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert what in refusal(tmp_path)


def test_a_folder_of_folders_with_weights_names_one(tmp_path):
    """A pipeline of diffusers holds its models in subfolders."""
    (tmp_path / "unet").mkdir()
    save_file(STATE, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert str(tmp_path / "unet") in refusal(tmp_path)
    assert open_checkpoint(tmp_path / "unet").tensors.keys() == STATE.keys()

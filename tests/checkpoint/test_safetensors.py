"""Tests of reading and writing safetensors."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.checkpoint import BY_TORCH, TensorInfo, open_checkpoint, write_safetensors
from mergekit_wise.errors import CheckpointError

EVERY_DTYPE = {
    name: torch.arange(16, dtype=torch.uint8).view(dtype) if dtype is not torch.bool else torch.tensor([True, False])
    for name, dtype in ((name, getattr(torch, name)) for name in BY_TORCH)
}
TENSORS = {**EVERY_DTYPE, "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "größe/模型": torch.ones(2, 3)}


def stored(path):
    checkpoint = open_checkpoint(path)
    return {name: (checkpoint.info(name), checkpoint.read(name)) for name in checkpoint.tensors}


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {}], ids=["metadata", "none"])
def test_written_file_equals_safetensors_own_byte_for_byte(metadata, tmp_path):
    """Order and padding are safetensors' own for all dtypes, a scalar, an empty tensor and names in any script."""
    save_file(TENSORS, tmp_path / "theirs", metadata or None)
    write_safetensors(tmp_path / "ours", stored(tmp_path / "theirs"), metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_every_dtype_is_read_as_safetensors_reads_it(tmp_path):
    """Names, shapes and bytes are those that ``load_file`` returns."""
    save_file(TENSORS, tmp_path / "file")
    ours, theirs = stored(tmp_path / "file"), load_file(tmp_path / "file")
    assert ours.keys() == theirs.keys()
    for name, (info, storage) in ours.items():
        assert info.shape == tuple(theirs[name].shape)
        assert str(theirs[name].dtype) == f"torch.{info.dtype}"
        assert storage.tobytes() == theirs[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_part_of_a_tensor_is_read_without_copying(tmp_path):
    """`read` gives a read-only view of the mapped file."""
    save_file({"x": torch.arange(100.0)}, tmp_path / "file")
    part = open_checkpoint(tmp_path / "file").read("x", 10, 13)
    np.testing.assert_array_equal(part, [10, 11, 12])
    assert not part.flags.owndata
    assert not part.flags.writeable


def header(**entries) -> bytes:
    return json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, **entries}).encode()


def framed(text: bytes, body: bytes = bytes(8)) -> bytes:
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype="F32", shape=(2,), offsets=(8, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = {
    "truncated body": (framed(header(), bytes(7)), "promises 8 bytes of tensors, the file has 7"),
    "trailing bytes": (framed(header(), bytes(9)), "promises 8 bytes of tensors, the file has 9"),
    "truncated header": (framed(header())[:20], "truncated"),
    "absurd header length": (b"\xff" * 7 + b"\x00{" + bytes(8), "header would be"),
    "broken JSON": (framed(b'{"x": '), "damaged"),
    "not UTF-8": (framed(b'{"\xff": 1}'), "damaged"),
    "deep nesting": (framed(b'{"x":' + b"[" * 100_000), "damaged"),
    "duplicate name": (framed(b'{"x":1,"x":2}'), "occurs twice"),
    "hole": (framed(header(y=entry(offsets=(12, 20))), bytes(20)), "starts at byte 12, not at 8"),
    "overlap": (framed(header(y=entry(offsets=(4, 12))), bytes(12)), "starts at byte 4, not at 8"),
    "wrong size": (framed(header(y=entry(shape=(3,))), bytes(16)), "needs 12 bytes"),
    "overflowing shape": (framed(header(y=entry(shape=(2**62, 2**62)))), "needs"),
    "negative shape": (framed(header(y=entry(shape=(-2,)))), "not a natural number"),
    "boolean shape": (framed(header(y=entry(shape=(True, 2)))), "not a natural number"),
    "unknown dtype": (framed(header(y=entry(dtype="F7"))), "unknown dtype 'F7'"),
    "no offsets": (framed(header(y={"dtype": "F32", "shape": [1]})), "lacks"),
    "metadata of numbers": (framed(header(__metadata__={"a": 1})), "not a map of texts"),
    "no tensors": (framed(b"{}", b""), "without tensors"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused_with_its_path_and_reason(content, message, tmp_path):
    """Every number in a header is checked, and each kind of damage has its own message."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_metadata_order_does_not_change_the_bytes(tmp_path):
    """Several entries, which safetensors itself writes in a random order, are sorted."""
    tensors = {"x": (TensorInfo("x", BY_TORCH["float32"], (1,)), np.zeros(1, np.float32))}
    write_safetensors(tmp_path / "a", tensors, {"k": "1", "b": "2", "z": "3"})
    write_safetensors(tmp_path / "b", tensors, {"z": "3", "b": "2", "k": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert open_checkpoint(tmp_path / "a").metadata == {"b": "2", "k": "1", "z": "3"}

"""Tests of the zip format of ``torch.save`` as it is written, with torch and Python's zipfile as oracles."""

import json
import zipfile
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import (
    BY_TORCH,
    TensorInfo,
    open_checkpoint,
    plan_output,
    write_checkpoint,
    writing_output,
)
from mergekit_wise.checkpoint.torch_writing import checksum_of
from mergekit_wise.errors import CheckpointError, OutputError
from mergekit_wise.merging.torch_backend import as_stored

STATE = {
    "b": torch.randn(3, 2, 4),
    "a": torch.randn(5).bfloat16(),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "größe": torch.arange(7),
    "flags": torch.tensor([True, False]),
    "complex": torch.randn(3, dtype=torch.complex64),
    "half": torch.randn(2).half(),
    **{f"i.{bits}": torch.arange(3).to(getattr(torch, f"int{bits}")) for bits in (8, 16, 32)},
    **{f"u.{bits}": torch.arange(3).to(getattr(torch, f"uint{bits}")) for bits in (8, 16, 32, 64)},
    "f8": torch.randn(3).to(torch.float8_e4m3fn),
    "f8.2": torch.randn(3).to(torch.float8_e5m2),
}


def written(path, state=STATE, metadata=None):
    write_checkpoint(path, {name: as_stored(name, tensor) for name, tensor in state.items()}, metadata or {})
    return path


def assert_same(loaded, state):
    assert list(loaded) == list(state)
    for name, tensor in state.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert loaded[name].is_contiguous()
        assert loaded[name].reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_is_written(ending, mmap, tmp_path):
    """torch.load gives every dtype, in the order of writing, without running code, mapped or not."""
    path = written(tmp_path / f"x{ending}", metadata={"format": "pt"})
    assert_same(torch.load(path, weights_only=True, mmap=mmap), STATE)


def test_the_archive_is_whole_and_storages_are_aligned(tmp_path):
    """zipfile finds every checksum right, and storages start at multiples of 64 bytes, as torch places them."""
    path = written(tmp_path / "x.pt", metadata={"a": "b"})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    reader = torch._C.PyTorchFileReader(str(path))
    for number in range(len(STATE)):
        assert reader.get_record_offset(f"data/{number}") % 64 == 0


def test_the_metadata_is_read_again(tmp_path):
    """Our reader finds the metadata, which torch does not see, and the tensors; the name changes no byte."""
    metadata = {"mergekit_wise": json.dumps({"alpha": 0.5}), "größe": "ß"}
    path = written(tmp_path / "x.pt", metadata=metadata)
    checkpoint = open_checkpoint(path)
    assert checkpoint.metadata == metadata
    assert checkpoint.notes == ()
    for name, tensor in STATE.items():
        assert checkpoint.read(name).tobytes() == bytes(tensor.reshape(-1).view(torch.uint8).tolist())
    assert written(tmp_path / "other.bin", metadata=metadata).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "{", '{"a": "x", "a": "y"}', "[" * 100_000])
def test_metadata_that_is_no_map_of_texts_is_refused(text, tmp_path):
    """The record is checked like the metadata of a safetensors file."""
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/mergekit_wise.json", text)
    with pytest.raises(CheckpointError, match="not a readable torch.save file"):
        open_checkpoint(path)


def test_a_module_loads_what_is_written(tmp_path):
    """load_state_dict takes the file's dictionary as it is."""
    module = torch.nn.Linear(3, 2)
    other = torch.nn.Linear(3, 2)
    path = written(tmp_path / "x.pt", module.state_dict(), {"a": "b"})
    other.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(other.weight, module.weight)


def test_tensors_and_files_of_more_than_4_gib_are_written(tmp_path):
    """Sizes and offsets that need 64 bits are read back by torch, zipfile and this tool. The file has holes."""
    large = TensorInfo("large", BY_TORCH["uint8"], ((1 << 32) + 5,))
    small = TensorInfo("small", BY_TORCH["float32"], (2,))
    path = tmp_path / "x.pt"
    with writing_output(plan_output(path, (large, small), {"a": "b"})) as out:
        out.put("large", 1 << 32, np.arange(5, dtype=np.uint8))
        out.put("small", 0, np.array([1.5, 2.5], np.float32))
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["large"][-6:].tolist() == [0, 0, 1, 2, 3, 4]
    assert loaded["small"].tolist() == [1.5, 2.5]
    with zipfile.ZipFile(path) as archive:
        assert archive.read("archive/data/1") == loaded["small"].numpy().tobytes()
    checkpoint = open_checkpoint(path)
    assert checkpoint.read("large", 1 << 32).tolist() == [0, 1, 2, 3, 4]
    assert checkpoint.read("small").tolist() == [1.5, 2.5]


def test_more_than_65535_tensors_are_written(tmp_path):
    """The number of records needs the 64-bit directory, which torch's reader and zipfile understand."""
    infos = [TensorInfo(f"t.{number}", BY_TORCH["uint8"], (0,)) for number in range(66_000)]
    path = tmp_path / "x.pt"
    with writing_output(plan_output(path, infos, {"a": "b"})):
        pass
    assert torch._C.PyTorchFileReader(str(path)).has_record("data/65999")
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_000 + 4


def test_a_checksum_is_put_together_from_parts_in_any_order():
    """The CRC-32 of the whole follows from those of its parts, as zlib computes it."""
    data = np.random.default_rng(0).bytes(100_000)
    cuts = [0, 1, 1, 7, 4096, 70_000, 100_000]
    parts = [(a, zlib.crc32(data[a:b]), b - a) for a, b in pairwise(cuts)]
    assert checksum_of(parts[::-1]) == zlib.crc32(data)
    assert checksum_of([]) == 0


@pytest.mark.parametrize("name", ["x.gguf", "x.safetensor", "x.json", "x.pt.zip"])
def test_other_endings_are_refused_with_those_that_are_allowed(name, tmp_path):
    """The error names the ending that was found and all that are written."""
    with pytest.raises(OutputError, match=r"ending \.\w+\. End the name in \.safetensors, or in \.pt, \.pth, \.bin or"):
        plan_output(tmp_path / name, (), {})

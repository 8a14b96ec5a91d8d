"""Tests of reading what torch.save writes."""

import io
import zipfile
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from mergekit_wise.checkpoint import BY_TORCH, open_checkpoint
from mergekit_wise.errors import CheckpointError


def saved(value, tmp_path):
    torch.save(value, tmp_path / "file.pt")
    return open_checkpoint(tmp_path / "file.pt")


def assert_holds(checkpoint, state):
    assert list(checkpoint.tensors) == list(state)
    for name, tensor in state.items():
        assert checkpoint.info(name).shape == tuple(tensor.shape), name
        assert f"torch.{checkpoint.info(name).dtype}" == str(tensor.dtype), name
        wanted = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert checkpoint.read(name).tobytes() == wanted, name


def test_every_dtype_is_read(tmp_path):
    """Bytes, dtypes and shapes are those that torch saved, also for dtypes newer than typed storages."""
    state = {
        name: torch.arange(16, dtype=torch.uint8).view(getattr(torch, name))
        if name != "bool"
        else torch.tensor([True, False])
        for name in BY_TORCH
    }
    assert_holds(saved(state, tmp_path), state)


def test_strided_shared_empty_and_scalar_tensors_are_read(tmp_path):
    """Transposed, sliced, expanded and tied views of one storage are read, none of which is dense."""
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "transposed": base.t(),
        "columns": base[:, 1:5:2],
        "expanded": torch.ones(3, 1).expand(3, 4),
        "tied": base,
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 5),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    checkpoint = saved(state, tmp_path)
    assert_holds(checkpoint, state)
    np.testing.assert_array_equal(checkpoint.read("transposed", 5, 9), base.t().reshape(-1)[5:9])


def test_weights_are_found_in_a_training_checkpoint(tmp_path):
    """`state_dict` is used, the wrapper `module` is removed, and notes say so."""
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    wrapped = {f"module.{name}": tensor for name, tensor in layer.state_dict().items()}
    checkpoint = saved({"epoch": 3, "state_dict": wrapped, "optimizer": optimizer.state_dict()}, tmp_path)
    assert_holds(checkpoint, layer.state_dict())
    assert "optimizer" in checkpoint.notes[0]
    assert "'module'" in checkpoint.notes[1]


class Losses(list):
    """What a training script keeps beside the weights; not importable for the reader."""


def test_lists_and_dictionaries_of_other_classes_are_left_out_by_name(tmp_path):
    """Containers of unknown classes are ignored with a note, however much they hold."""
    state = {
        "w": torch.ones(2),
        "losses": Losses(range(2000)),
        "best": defaultdict(list, {i: [i] for i in range(2000)}),
    }
    checkpoint = saved(state, tmp_path)
    assert_holds(checkpoint, {"w": state["w"]})
    assert "losses (" in checkpoint.notes[0]
    assert "Losses)" in checkpoint.notes[0]
    assert "best (collections.defaultdict)" in checkpoint.notes[0]


class Unimportable(nn.Module):
    """Stands for a class that the reader does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)


def test_weights_are_read_out_of_a_pickled_module(tmp_path):
    """Names and bytes are those of the module's own state_dict, without buffers that do not persist."""
    module = Unimportable()
    assert_holds(saved(module, tmp_path), module.state_dict())


class Attack:
    """Runs a command where a pickle is executed."""

    def __init__(self, call, *arguments) -> None:
        self.parts = (call, arguments)

    def __reduce__(self):
        return self.parts


def test_nothing_in_a_pickle_is_executed(tmp_path):
    """A call next to the weights is only named, although torch's own unsafe loading would have run it."""
    import os

    target = tmp_path / "owned"
    state = {"w": torch.ones(2), "evil": Attack(os.system, f"touch {target}")}
    checkpoint = saved(state, tmp_path)
    assert list(checkpoint.tensors) == ["w"]
    assert "evil" in checkpoint.notes[0]
    assert not target.exists()
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert target.exists(), "the attack itself must work, or this test shows nothing"


def archive(tmp_path, change):
    """A saved state dict, its zip members changed by `change(name, content) -> content or None`."""
    torch.save({"w": torch.arange(4.0)}, tmp_path / "good.pt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    (tmp_path / "bad.pt").write_bytes(buffer.getvalue())
    return tmp_path / "bad.pt"


BROKEN = {
    "no pickle": (lambda n, c: None if n.endswith("data.pkl") else c, "0 data.pkl"),
    "no storage": (lambda n, c: None if n.endswith("data/0") else c, "storage '0' is missing"),
    "short storage": (lambda n, c: c[:-1] if n.endswith("data/0") else c, "beyond its storage"),
    "torn pickle": (lambda n, c: c[:-9] if n.endswith("data.pkl") else c, "not a readable"),
    "big endian": (lambda n, c: b"big" if n.endswith("byteorder") else c, "big-endian"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_damaged_archive_is_refused(change, message, tmp_path):
    """Each kind of damage has its own message."""
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(archive(tmp_path, change))


def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    """A pickle is read whole, so one that is larger than the limit is refused."""
    monkeypatch.setattr("mergekit_wise.checkpoint.torch_zip.MAX_PICKLE", 100)
    with pytest.raises(CheckpointError, match=r"data\.pkl is \d+ bytes long"):
        saved({"w": torch.ones(2)}, tmp_path)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {}, "text"], ids=str)
def test_a_file_without_weights_is_refused(value, tmp_path):
    """The error says what the file holds instead."""
    with pytest.raises(CheckpointError, match="it holds a"):
        saved(value, tmp_path)


def test_a_compressed_archive_is_refused_by_name(tmp_path):
    """Storages of a compressed archive cannot be mapped, so it is refused."""
    torch.save({"w": torch.zeros(1000)}, tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(tmp_path / "z.pt")

"""A run's state: what was kept is what comes back, and nothing is executed."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.errors import CheckpointError
from mergekit_wise.training.checkpointer import Checkpointer, load_state, save_state


def test_tensors_and_facts_come_back(tmp_path):
    """Tensors of any dtype and shape (transposed, scalar, empty) and the facts are restored exactly."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "weights": torch.randn(3, 5, generator=generator).T,
        "half": torch.randn(7, generator=generator).bfloat16(),
        "step": torch.tensor(12.0),
        "count": torch.tensor([1, 2]),
        "empty": torch.zeros(0, 3),
    }
    save_state(tmp_path / "state.safetensors", tensors, {"step": 3, "lr": 3e-5, "names": ["a"]})
    found, facts = load_state(tmp_path / "state.safetensors")
    assert facts == {"step": 3, "lr": 3e-5, "names": ["a"]}
    assert found.keys() == tensors.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_other_files_are_refused(tmp_path):
    """A checkpoint and a truncated state raise CheckpointError."""
    save_file({"a": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(tmp_path / "other.safetensors")
    save_state(tmp_path / "state.safetensors", {"a": torch.ones(1000)}, {})
    whole = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(whole[:2000])
    with pytest.raises(CheckpointError):
        load_state(tmp_path / "state.safetensors")


def test_a_state_is_a_plain_safetensors_file(tmp_path):
    """The safetensors library opens a state and finds the facts in its metadata."""
    from safetensors import safe_open

    save_state(tmp_path / "state.safetensors", {"a": torch.arange(3.0)}, {"step": 1})
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("a"), torch.arange(3.0))
        assert json.loads(file.metadata()["mergekit_wise_training"]) == {"step": 1}


def test_only_files_that_a_run_writes_are_cleared(tmp_path):
    """The state and the checkpoints of epochs are removed; a file of the user's with a similar name stays."""
    for name in ("state.safetensors", "epoch-1.safetensors", "epoch-12.safetensors", "epoch-best.safetensors"):
        (tmp_path / name).touch()
    Checkpointer(tmp_path, {}, {}, None).clear(keep_epochs=False)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-best.safetensors"]


def test_what_a_run_chose_is_read_without_its_tensors(tmp_path):
    """A folder without a state, and a state of an earlier version, have no choices; another file is refused."""
    path = tmp_path / "state.safetensors"
    assert Checkpointer.chosen_in(tmp_path) == {}
    save_state(path, {"a": torch.ones(3)}, {"step": 1})
    assert Checkpointer.chosen_in(tmp_path) == {}
    save_state(path, {"a": torch.ones(3)}, {"chosen": {"precision": "bf16", "compiled": False}})
    assert Checkpointer.chosen_in(tmp_path) == {"precision": "bf16", "compiled": False}
    save_file({"a": torch.ones(3)}, path, {"mergekit_wise_training": "[]"})
    with pytest.raises(CheckpointError, match="not a training state"):
        Checkpointer.chosen_in(tmp_path)

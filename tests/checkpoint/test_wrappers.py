"""Tests of the names that wrapping modules leave in checkpoints."""

import pytest
import torch
from torch import nn

from mergekit_wise.checkpoint import open_checkpoint

WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")


def tower():
    """A model with a submodule in the middle of its names."""
    torch.manual_seed(0)
    return nn.ModuleDict({"visual": nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(2, 2)), "head": nn.Linear(2, 3)})


def opened(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    return open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inside", ["", "visual.", "visual.1."])
def test_a_wrapper_comes_off_wherever_it_stands(wrapper, inside, tmp_path):
    """Around the whole model, around a tower and around a layer, names are those of the bare model."""
    state = tower().state_dict()
    wrapped = {
        f"{inside}{wrapper}.{name.removeprefix(inside)}" if name.startswith(inside) else name: tensor
        for name, tensor in state.items()
    }
    found = opened(tmp_path, wrapped)
    assert list(found.tensors) == list(state)
    changed = sum(name.startswith(inside) for name in state)
    assert any(wrapper in note and ("all" if changed == 6 else f"{changed} of 6") in note for note in found.notes)
    for name, tensor in state.items():
        assert found.read(name).tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "DataParallel"])
@pytest.mark.parametrize("whole", [True, False], ids=["state dict", "module"])
def test_what_torch_itself_wraps_gets_its_bare_names(wrap, whole, tmp_path):
    """State dicts and pickled modules of torch's own wrappers, in the middle and around everything, nested too."""
    model = tower()
    names = list(model.state_dict())
    model["visual"] = wrap(model["visual"])
    model = nn.DataParallel(wrap(model))
    assert list(opened(tmp_path, model.state_dict() if whole else model).tensors) == names


def test_a_submodule_named_module_beside_others_stays(tmp_path):
    """A part named `module` is a wrapper only where everything under its parent goes through it."""
    state = {"a.module.weight": torch.ones(1), "a.weight": torch.ones(1), "b.module": torch.ones(1)}
    found = opened(tmp_path, state)
    assert list(found.tensors) == list(state)
    assert found.notes == ()


def test_names_that_would_collide_stay_with_a_note(tmp_path):
    """A file that holds a wrapped and a bare tensor of one name keeps both."""
    state = {"_orig_mod.weight": torch.ones(1), "weight": torch.zeros(1)}
    found = opened(tmp_path, state)
    assert list(found.tensors) == list(state)
    (note,) = found.notes
    assert "_orig_mod" in note
    assert "kept" in note

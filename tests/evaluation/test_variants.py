"""Weights of mixtures on devices that lack something: memory, or float64."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation.variants import InterpolatedWeights
from mergekit_wise.merging import Pair, Rules, torch_backend
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.model import Model

NAMES = ("visual.0.weight", "visual.0.bias", "classification_head.weight", "classification_head.bias")


def pair_of(folder, dtype=torch.float32):
    """Two checkpoints of `model_on`, whose features' bias is the same."""
    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        state = dict(zip(NAMES, (torch.randn(6, 5), torch.ones(6), torch.randn(4, 6), torch.randn(4)), strict=True))
        paths.append(folder / f"{seed}.safetensors")
        save_file({name: value.to(dtype) for name, value in state.items()}, paths[-1])
    sides = [open_checkpoint(path) for path in paths]
    return Pair(*sides, tuple(sides[0].tensors))


def model_on(device):
    """A linear layer and a linear head."""
    module = Classifier(nn.Sequential(nn.Linear(5, 6)), 6, 4).to(device)
    return Model(lambda: module, {}, "", {}, {name: Destination(name) for name in NAMES}, has_own_head=True)


class Watch(TorchDispatchMode):
    """Counts copies to the device meta, which stands for a GPU, and refuses float64 there, as Apple's do."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        tensors = [each for each in tree_leaves((args, kwargs, found)) if isinstance(each, torch.Tensor)]
        there = [each for each in tensors if each.is_meta]
        if there and any(each.dtype == torch.float64 for each in tensors):
            raise TypeError(f"{func}: float64 on a device without it")
        self.sent += func is torch.ops.aten._to_copy.default and bool(there) and not all(e.is_meta for e in tensors)
        return found


def test_both_checkpoints_stay_on_the_device_and_are_sent_once(tmp_path):
    """Three tensors of each differ; mixtures after the first send nothing."""
    weights, model = InterpolatedWeights(pair_of(tmp_path)), model_on("meta")
    sent = []
    for alpha in (0.3, 0.6):
        with Watch() as watch:
            weights.install(model, Rules(alpha))
        sent.append(watch.sent)
    assert sent == [6, 0]


def test_where_memory_runs_out_the_device_keeps_the_model_alone(tmp_path, monkeypatch):
    """That is noted once; each mixture is then sent to it."""
    weights, model, notes = InterpolatedWeights(pair_of(tmp_path)), model_on("meta"), []
    mix, failures = torch_backend.mix_into, [torch.OutOfMemoryError("CUDA out of memory.")]

    def full_once(*args):
        if failures:
            raise failures.pop()
        mix(*args)

    monkeypatch.setattr(torch_backend, "mix_into", full_once)
    weights.install(model, Rules(0.3), notes.append)
    for alpha in (0.6, 0.9):
        with Watch() as watch:
            weights.install(model, Rules(alpha), notes.append)
        assert watch.sent == 6
    (note,) = notes
    assert "memory of meta ran out" in note


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_memory_that_does_not_suffice_for_the_model_alone_is_an_error(device, tmp_path, monkeypatch):
    """It names the way out; other errors are raised unchanged."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    weights, model = InterpolatedWeights(pair_of(tmp_path)), model_on(device)
    monkeypatch.setattr(torch_backend, "mix_into", full)
    with pytest.raises(ModelError, match=f"The memory of {device} .* Use "):
        weights.install(model, Rules(0.3))

    def wrong(*_):
        raise RuntimeError("shapes")

    monkeypatch.setattr(torch_backend, "mix_into", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        weights.install(model, Rules(0.3))


def test_float64_is_mixed_on_the_cpu_and_sent_as_float32_where_a_device_lacks_it(tmp_path):
    """The model has the values of the merged file, rounded to its own dtype."""
    weights = InterpolatedWeights(pair_of(tmp_path, torch.float64))
    for alpha in (0.3, 0.0, 1.0):
        with Watch():
            weights.install(model_on("meta"), Rules(alpha))
        model = model_on("cpu")
        weights.install(model, Rules(alpha))
        for name, tensor in model.module.state_dict().items():
            wanted = torch.from_numpy(weights.read(Rules(alpha), name)[1].copy()).view(tensor.shape)
            assert torch.equal(tensor, wanted.float())

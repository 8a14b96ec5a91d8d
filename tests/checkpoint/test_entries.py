"""Tests of which entry of a training checkpoint is the state dict, against what torch saved there."""

from collections import UserDict, defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError


def weights(seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    return {
        "visual.conv1.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "visual.proj": torch.randn(6, 6, generator=generator),
        "logit_scale": torch.randn((), generator=generator),
        **more,
    }


def saved(value, tmp_path, entry=None) -> object:
    torch.save(value, tmp_path / "x.pt")
    return open_checkpoint(tmp_path / "x.pt", entry=entry)


def assert_holds(checkpoint, state):
    assert list(checkpoint.tensors) == list(state)
    for name, tensor in state.items():
        assert checkpoint.read(name).tobytes() == tensor.detach().contiguous().numpy().tobytes(), name


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))


def adam_state():
    layers = Layers()
    optimizer = torch.optim.AdamW(layers.parameters())
    layers.body(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


W = weights(1)
BESIDE = {
    "a loss": ({"loss": torch.tensor(0.4), "model_state_dict": W}, "model_state_dict"),
    "an accuracy of one element": ({"best_acc1": torch.tensor([71.0]), "state_dict": W}, "state_dict"),
    "the state of a random generator": ({"rng_state": torch.get_rng_state(), "weights": W}, "weights"),
    "constants of preprocessing": ({"mean": torch.rand(3), "std": torch.rand(3), "anything": W}, "anything"),
    "numbers": ({"net": W, "epoch": 3, "acc": 95.1}, "net"),
    "a name of its own": ({"my_run": W, "epoch": 3}, "my_run"),
    "an average alone": ({"params_ema": W}, "params_ema"),
    "a teacher alone": ({"teacher": W, "optimizer": adam_state()}, "teacher"),
    "an optimizer under a name of its own": ({"model": W, "second": adam_state()}, "model"),
    "an optimizer's states by parameter": ({"run": W, "state": adam_state()["state"]}, "run"),
    "two levels": ({"state": {"model": W, "optimizers": {"Adam": adam_state()}}, "rng": []}, "state.model"),
    "five levels": ({"a": {"b": {"c": {"d": {"e": W}}}}}, "a.b.c.d.e"),
    "a list": ([W, {"epoch": 1}], "0"),
    "a tuple in a list": ([3, ("run", W)], "1.1"),
    "Lightning": (
        {
            **{"epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.5", "state_dict": W, "loops": {}},
            **{"callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.3)}}},
            **{"optimizer_states": [adam_state()], "lr_schedulers": [{"last_epoch": 1}], "hyper_parameters": {}},
        },
        "state_dict",
    ),
    "a defaultdict": ({"model": defaultdict(list, W), "loss": torch.tensor(1.0)}, "model"),
    "a key with a dot": ({"v1.0": W}, "v1.0"),
    "a layer of a dictionary": ({"loss": torch.tensor(1.0), "head": {"weight": torch.ones(2, 3)}}, None),
}


@pytest.mark.parametrize(("value", "entry"), BESIDE.values(), ids=BESIDE.keys())
def test_the_weights_are_found_by_what_they_look_like(value, entry, tmp_path):
    """Whatever lies beside them, the weights are read; the note names the entry, and that name reads it again."""
    checkpoint = saved(value, tmp_path)
    entry = entry or "head"
    wanted = W if entry != "head" else value["head"]
    assert_holds(checkpoint, wanted)
    assert f"using {entry!r}" in checkpoint.notes[0]
    assert_holds(saved(value, tmp_path, entry), wanted)


def test_an_average_beside_the_weights_is_named_with_what_to_pass(tmp_path):
    """`model` is read; the text in the note, passed on, reads the average with the names of the model."""
    layers = Layers()
    average = AveragedModel(layers)
    with torch.no_grad():
        layers.body[0].weight += 1
    value = {"model_ema": average.state_dict(), "model": layers.state_dict()}
    checkpoint = saved(value, tmp_path)
    assert_holds(checkpoint, layers.state_dict())
    text = f"{tmp_path / 'x.pt'}::model_ema"
    assert any(text in note and "average" in note for note in checkpoint.notes)
    averaged = saved(value, tmp_path, "model_ema")
    assert_holds(averaged, average.module.state_dict())
    assert any("n_averaged" in note for note in averaged.notes)
    assert averaged.kind != checkpoint.kind


SEVERAL = {
    "two networks": ({"G": weights(1), "D": weights(2)}, {"G", "D"}),
    "an encoder and a decoder": ({"model": {"encoder": weights(1), "decoder": weights(2)}}, {"encoder", "decoder"}),
    "a student and a teacher": ({"student": weights(1), "teacher": weights(2)}, {"student", "teacher"}),
    "a discriminator and another network's average": (
        {"D": weights(1, more=torch.ones(9, 9)), "G_ema": weights(2, other=torch.ones(8, 8))},
        {"D", "G_ema"},
    ),
    "a convention on a small part": (
        {"state_dict": {"head.weight": torch.ones(2, 3)}, "backbone": {f"b.{i}": torch.ones(9, 9) for i in range(9)}},
        {"state_dict", "backbone"},
    ),
    "loose tensors of a model": (
        {"a.w": torch.ones(2, 3), "b.w": torch.ones(2, 3), "rest": {"c.w": torch.ones(2, 3), "d.w": torch.ones(2, 3)}},
        {"", "rest"},
    ),
}


@pytest.mark.parametrize(("value", "entries"), SEVERAL.values(), ids=SEVERAL.keys())
def test_where_nothing_decides_the_user_is_asked(value, entries, tmp_path):
    """The refusal lists every entry as FILE::ENTRY, and each of these texts reads that entry."""
    with pytest.raises(CheckpointError, match="several of its entries") as caught:
        saved(value, tmp_path)
    assert "cut off" not in str(caught.value)
    words = [word for word in str(caught.value).split() if "::" in word]
    found = [word.partition("::")[2].strip("',()") for word in words]
    assert {entry.rpartition(".")[2] for entry in found} == entries
    for entry in found:
        part = value
        for key in filter(None, entry.split(".")):
            part = part[key]
        assert_holds(saved(value, tmp_path, entry), {k: t for k, t in part.items() if isinstance(t, torch.Tensor)})


def test_a_far_larger_entry_is_taken_without_a_convention(tmp_path):
    """A backbone beside a small head is read, and the head is named with what to pass."""
    value = {"backbone": {f"b.{i}": torch.ones(9, 9) for i in range(20)}, "head": {"h.w": torch.ones(3)}}
    checkpoint = saved(value, tmp_path)
    assert_holds(checkpoint, value["backbone"])
    assert any(f"{tmp_path / 'x.pt'}::head (1 tensor)" in note for note in checkpoint.notes)


def test_entries_of_pickled_modules_are_found(tmp_path):
    """A module in a dictionary is read whole; its parts can be asked for by name."""
    torch.manual_seed(0)
    layers = Layers()
    value = {"epoch": 1, "ema": layers, "optimizer": adam_state(), "model": None}
    assert_holds(saved(value, tmp_path), layers.state_dict())
    assert_holds(saved(value, tmp_path, "ema.body.0"), layers.body[0].state_dict())


@pytest.mark.parametrize(("entry", "words"), [("modle", "'model'"), ("model.encoder", "visual.proj"), ("epoch", "int")])
def test_a_wrong_entry_lists_what_is_there(entry, words, tmp_path):
    """A slip lists the keys and suggests one; an entry that holds no tensors is named with its type."""
    with pytest.raises(CheckpointError) as caught:
        saved({"model": W, "epoch": 3}, tmp_path, entry)
    assert words in str(caught.value)
    assert repr(entry.rpartition(".")[2]) in str(caught.value)


def test_a_single_tensor_is_no_state_dict(tmp_path):
    """The refusal says under what to save it."""
    with pytest.raises(CheckpointError, match="single tensor of shape .*Save it under a name"):
        saved(torch.ones(3), tmp_path)


class Opaque:
    """Stands for a model of a library that the reader does not have."""

    def __init__(self) -> None:
        self.blob = b"weights of another library"


def test_a_loss_beside_an_object_is_not_taken_for_the_weights(tmp_path):
    """Where the model is an object that is not read, nothing is read, rather than the loss alone."""
    with pytest.raises(CheckpointError, match=r"loss \(single numbers\).*Opaque"):
        saved({"loss": torch.tensor(0.5), "model": Opaque()}, tmp_path)


def test_what_lies_beside_never_fails_the_file(tmp_path):
    """Odd keys, sets, dtypes and long lists beside the weights are ignored, in all containers of torch."""
    beside = {
        **{2**63 + i: i for i in range(10)},
        (1, (2, (3, (4,)))): 1,
        (1.5, "x"): 2,
        frozenset((1, 2)): 3,
        None: 4,
        "sets": [frozenset((frozenset((1,)), (1, (2,)), 2**70)), {(2.5, 1)}],
        "double": torch.ones(3, dtype=torch.complex128),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(3, device="meta"),
        "losses": list(range(100_000)),
        "user": UserDict(a=1),
    }
    for modern in (True, False):
        path = tmp_path / f"{modern}.pt"
        torch.save({"model": W, "more": beside, **beside}, path, _use_new_zipfile_serialization=modern)
        assert_holds(open_checkpoint(path), W)


@pytest.mark.filterwarnings("ignore:torch.quantize_per")
def test_quantized_tensors_beside_the_weights_are_ignored(tmp_path):
    """They are refused among the weights alone."""
    quantized = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
    assert_holds(saved({"model": W, "calibration": quantized}, tmp_path), W)
    with pytest.raises(CheckpointError, match=r"'q' is quantized; save it with .dequantize"):
        saved({"model": {**W, "q": quantized}}, tmp_path)


def test_a_layer_under_many_names_is_read_under_each(tmp_path):
    """One large layer used 24 times is ordinary; it takes many times the size of the file."""
    layer = nn.Linear(2000, 1100, bias=False)
    module = nn.ModuleList([layer] * 24)
    checkpoint = saved(module, tmp_path)
    assert list(checkpoint.tensors) == list(module.state_dict())
    assert checkpoint.nbytes == 24 * layer.weight.nbytes
    assert checkpoint.read("23.weight", 0, 5).tolist() == layer.weight.flatten()[:5].tolist()


def test_zero_3_placeholders_are_refused_with_the_script_that_gathers_them(tmp_path):
    """DeepSpeed's model states hold empty tensors where other files hold the values."""
    empty = {name: torch.empty(0, dtype=torch.half) for name in W}
    states = {"module": empty, "param_shapes": [{n: t.shape for n, t in W.items()}], "ds_config": {"a": 1}}
    with pytest.raises(CheckpointError, match=r"python zero_to_fp32\.py"):
        saved(states, tmp_path)


def test_an_optimizer_can_be_asked_for(tmp_path):
    """What is never chosen can be named."""
    state = adam_state()
    checkpoint = saved({"model": W, "optimizer": state}, tmp_path, "optimizer.state.0")
    assert_holds(checkpoint, state["state"][0])
    assert Path(checkpoint.path).name == "x.pt"


@pytest.mark.parametrize("key", ["optimal_model", "optimized_state_dict", "model_opt"])
def test_a_key_that_only_sounds_like_an_optimizer_is_not_passed_over(key, tmp_path):
    """The entry is used. If the file holds another model too, the error lists both, and the user chooses."""
    found = saved({key: W, "best_acc": torch.tensor(0.9)}, tmp_path)
    assert found.tensors.keys() == W.keys()
    with pytest.raises(CheckpointError, match=f"::{key}"):
        saved({key: W, "last": {name: tensor + 1 for name, tensor in W.items()}}, tmp_path)

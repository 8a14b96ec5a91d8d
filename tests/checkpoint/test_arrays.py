"""Tests of tensors in other forms than torch's usual one: NumPy arrays, lazy views, and what is refused by name."""

import pickle

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import BY_TORCH, open_checkpoint
from mergekit_wise.errors import CheckpointError

KEPT = torch.ones(2, 2)


def saved(value, path):
    torch.save(value, path)
    return open_checkpoint(path)


NUMBERS = np.arange(12).reshape(3, 4)
ARRAYS = {
    **{name: NUMBERS.astype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8")},
    **{"bool": NUMBERS > 5, "fortran": np.asfortranarray(NUMBERS.astype("f4")), "part": NUMBERS.astype("f4")[1:, ::2]},
    **{"scalar": np.array(2.5, "f4"), "empty": np.zeros((0, 3), "f4"), "long": np.arange(3000.0, dtype="f4")},
}


@pytest.mark.parametrize("write", [torch.save, *range(2, 6)], ids=["torch.save", *map(str, range(2, 6))])
def test_arrays_among_the_weights_are_read(write, tmp_path):
    """Every dtype and order of NumPy's that a checkpoint can hold, however torch.save and pickle write it."""
    if write is torch.save:
        torch.save({"w": KEPT, **ARRAYS}, tmp_path / "x")
    else:
        (tmp_path / "x").write_bytes(pickle.dumps(ARRAYS, write))
    checkpoint = open_checkpoint(tmp_path / "x")
    assert list(checkpoint.tensors) == [*(["w"] if write is torch.save else []), *ARRAYS]
    assert checkpoint.notes == ()
    for name, array in ARRAYS.items():
        info = checkpoint.info(name)
        assert (info.shape, f"torch.{info.dtype}") == (array.shape, str(torch.from_numpy(array.copy()).dtype)), name
        assert checkpoint.read(name).tobytes() == np.ascontiguousarray(array).tobytes(), name
        if array.size > 4:
            assert checkpoint.read(name, 2, 4).tolist() == np.ascontiguousarray(array).flat[2:4].tolist()


@pytest.mark.parametrize("array", [np.arange(3.0, dtype=">f4"), np.array(["a"]), np.array([None]), np.ones(2, "c16")])
def test_an_array_that_no_checkpoint_can_hold_is_refused_by_name(array, tmp_path):
    """Big-endian numbers, texts, objects and wide complex numbers among the weights."""
    with pytest.raises(CheckpointError, match="'odd' is a NumPy array of a dtype or byte order"):
        saved({"w": KEPT, "odd": array}, tmp_path / "x")


class Reduced:
    """Pickled as a call of torch's own functions, as on machines with other devices."""

    def __init__(self, function, *arguments) -> None:
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_tensors_of_devices_that_torch_saves_through_numpy_are_read(dtype, tmp_path):
    """XLA and HPU tensors; bfloat16 ones as torch saves them, in float32."""
    tensor = torch.tensor([1.5, -2, 3]).to(dtype)
    array = (tensor.float() if dtype == torch.bfloat16 else tensor).numpy()
    call = Reduced(torch._utils._rebuild_device_tensor_from_numpy, array, dtype, "hpu:0", False)
    other = Reduced(torch._utils._rebuild_device_tensor_from_cpu_tensor, tensor, dtype, "xla:0", False)
    checkpoint = saved({"w": KEPT, "numpy": call, "cpu": other}, tmp_path / "x")
    for name in ("numpy", "cpu"):
        assert checkpoint.info(name).dtype == BY_TORCH[str(dtype).removeprefix("torch.")]
        assert checkpoint.read(name).tobytes() == tensor.view(torch.uint8).numpy().tobytes()


def nested():
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


class Sharded(torch.Tensor):
    """A tensor without a storage of its own, as torch.distributed has them."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2, 2))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError


Sharded.__name__ = Sharded.__qualname__ = "DTensor"
DTensor = Sharded
UNREAD = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "to_dense"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), "to_dense"),
    "meta": (lambda: torch.ones(3, device="meta"), "load the weights"),
    "nested": (nested, "unbind"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "complex64"),
    "distributed": (Sharded, r"full_tensor\(\).*dcp_to_torch_save"),
    "device": (lambda: Reduced(torch._utils._rebuild_xla_tensor, "x", torch.float32, "xla:0", False), r"\.cpu\(\)"),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize(("make", "advice"), UNREAD.values(), ids=UNREAD.keys())
@pytest.mark.parametrize("wrapped", [False, True], ids=["state dict", "module"])
def test_a_weight_that_is_not_read_is_refused_by_name(make, advice, wrapped, tmp_path):
    """Among the weights it is an error that says what to do; it is never left out."""
    state = {"a.w": KEPT, "a.odd": make()}
    if wrapped:
        module = torch.nn.Module()
        module.a = torch.nn.Module()
        module.a.register_buffer("w", KEPT)
        module.a._buffers["odd"] = state["a.odd"]
        state = module
    with pytest.raises(CheckpointError, match=f"'a.odd' .*{advice}"):
        saved(state, tmp_path / "x")


def test_a_state_dict_of_unread_tensors_alone_is_refused_by_name(tmp_path):
    """It is the state dict all the same, and not the statistics beside it."""
    with pytest.raises(CheckpointError, match=r"each of 2 tensors \(a.w, b.w\) is sparse"):
        eye = torch.eye(3).to_sparse()
        saved({"model": {"a.w": eye, "b.w": eye}, "mean": torch.ones(3)}, tmp_path / "x")


def test_a_tensor_under_a_number_is_refused(tmp_path):
    """A weight without a name is not left out."""
    with pytest.raises(CheckpointError, match="'7' has a name that is not a text"):
        saved({"model": {"a.w": KEPT, 7: KEPT}}, tmp_path / "x")


LAZY = {
    "conjugate": lambda: torch.randn(3, 2, dtype=torch.complex64).conj(),
    "conjugate of a view": lambda: torch.randn(4, 4, dtype=torch.complex64)[1:, ::2].conj().t(),
    "negative": lambda: torch.randn(3, 2, dtype=torch.complex64).conj().imag,
    "negative half": lambda: torch._neg_view(torch.randn(5).half()),
    "negative bfloat16": lambda: torch._neg_view(torch.randn(5).bfloat16()),
    "negative integers": lambda: torch._neg_view(torch.arange(5)),
    "negative complex": lambda: torch._neg_view(torch.randn(3, dtype=torch.complex64)),
    "both": lambda: torch._neg_view(torch.randn(3, dtype=torch.complex64).conj()),
}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY.keys())
@pytest.mark.parametrize("modern", [True, False])
def test_lazy_views_hold_their_true_values(make, modern, tmp_path):
    """Torch saves the storage and a mark; the values read are those that torch computes."""
    torch.manual_seed(0)
    view = make()
    assert view.is_conj() or view.is_neg()
    torch.save({"c": view}, tmp_path / "x", _use_new_zipfile_serialization=modern)
    wanted = view.resolve_conj().resolve_neg().contiguous()
    checkpoint = open_checkpoint(tmp_path / "x")
    assert checkpoint.read("c").tobytes() == wanted.view(torch.uint8).numpy().tobytes()
    assert checkpoint.read("c", 1, 3).tobytes() == wanted.flatten()[1:3].view(torch.uint8).numpy().tobytes()

"""Derived tensors give, piece by piece, what NumPy gives for the whole."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from mergekit_wise.checkpoint import BY_NAME, TensorInfo, open_checkpoint
from mergekit_wise.checkpoint.derived import Computed, InMemory, reshaped, rows, stacked, transposed
from mergekit_wise.checkpoint.tensors import Tensor

A = np.arange(35, dtype="<f4").reshape(5, 7)
B = np.arange(100, 121, dtype="<f4").reshape(3, 7)


@pytest.fixture(params=["file", "memory"])
def matrices(request, tmp_path) -> tuple[Tensor, Tensor]:
    """A and B, in a file and in memory."""
    if request.param == "memory":
        infos = (TensorInfo("a", BY_NAME["F32"], A.shape), TensorInfo("b", BY_NAME["F32"], B.shape))
        return InMemory(infos[0], A.ravel()), InMemory(infos[1], B.ravel())
    save_file({"a": A, "b": B}, tmp_path / "x.safetensors")
    tensors = open_checkpoint(tmp_path / "x.safetensors").tensors
    return tensors["a"], tensors["b"]


def check(tensor: Tensor, expected: np.ndarray) -> None:
    """Every span of the tensor's elements is that of the expected array."""
    assert tensor.info.shape == expected.shape
    flat = expected.ravel()
    for start in range(flat.size + 1):
        for stop in range(start, flat.size + 1):
            found = tensor.read(start, stop)
            assert found.shape == (stop - start,)
            assert np.array_equal(found, flat[start:stop])


def test_a_transposed_matrix_has_the_transposes_elements(matrices):
    check(transposed(matrices[0]), A.T)


def test_transposing_twice_gives_the_matrix(matrices):
    check(transposed(transposed(matrices[0])), A)


def test_stacked_tensors_follow_one_another(matrices):
    check(stacked("s", [*matrices, matrices[1]]), np.concatenate([A, B, B]))


def test_rows_of_stacked_and_transposed_tensors(matrices):
    whole = stacked("s", list(matrices))
    check(rows(whole, 3, 7), np.concatenate([A, B])[3:7])
    check(rows(transposed(whole), 2, 4), np.concatenate([A, B]).T[2:4])


def test_a_reshaped_tensor_has_the_same_elements(matrices):
    check(reshaped(matrices[0], (1, 5, 7)), A[None])
    check(reshaped(transposed(matrices[0]), (35,)), A.T.ravel())


def test_a_computed_tensor_maps_the_elements(matrices):
    check(Computed(matrices[0].info, matrices[0], np.negative), -A)


def test_a_derived_tensor_names_the_files_it_reads(matrices):
    assert stacked("s", list(matrices)).files == (*matrices[0].files, *matrices[1].files)


def test_a_renamed_tensor_keeps_its_elements(matrices):
    renamed = transposed(matrices[0]).renamed("new")
    assert renamed.info.name == "new"
    check(renamed, A.T)

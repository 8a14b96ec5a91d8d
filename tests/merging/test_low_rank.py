"""A low-rank change is what exact arithmetic gives, rounded once, whichever of its elements are read."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import BY_NAME, TensorInfo
from mergekit_wise.checkpoint.derived import InMemory, transposed
from mergekit_wise.merging import low_rank as module
from mergekit_wise.merging.low_rank import low_rank
from mergekit_wise.merging.torch_backend import as_stored, as_tensor


def stored(tensor, shape=None):
    """A torch tensor as a tensor of a checkpoint."""
    info, elements = as_stored("x", tensor)
    return InMemory(TensorInfo("x", info.dtype, shape or info.shape), elements)


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact(base, left, right, scale):
    """The sum of rational numbers, rounded once to float64."""
    rows = [[Fraction(x) for x in row] for row in left.double().tolist()]
    columns = [[Fraction(x) for x in column] for column in right.T.double().tolist()]
    return np.array(
        [
            [
                float(Fraction(b) + Fraction(scale) * sum(map(Fraction.__mul__, row, column)))
                for b, column in zip(line, columns, strict=True)
            ]
            for line, row in zip(base.double().tolist(), rows, strict=True)
        ]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_elements_are_the_exact_numbers_rounded_once(dtype):
    """Whatever the dtypes of the base and of the factors, float32 holds the exact value; float64 does of a float64."""
    base, left, right = random(9, 7, dtype=dtype), random(9, 3, dtype=torch.bfloat16), random(3, 7, seed=1)
    tensor = low_rank(stored(base), stored(left), stored(right), 0.3)
    real = np.float64 if dtype == torch.float64 else np.float32
    assert tensor.info.dtype.storage == np.dtype(real).str
    assert tensor.saved_as.torch == str(dtype).removeprefix("torch.")
    wanted = exact(base, left, right, 0.3)
    if real is np.float32:
        assert np.array_equal(tensor.read(0, 63), wanted.astype(real).ravel())
    else:
        assert np.allclose(tensor.read(0, 63), wanted.ravel(), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("tile", [1, 20, 1 << 14])
def test_every_span_holds_the_same_numbers(tile, monkeypatch):
    """Elements do not depend on which others are read with them, nor on how many are computed at once."""
    tensor = low_rank(stored(random(5, 7)), stored(random(5, 4, seed=1)), stored(random(4, 7, seed=2)), 2.0)
    whole = tensor.read(0, 35)
    monkeypatch.setattr(module, "TILE", tile)
    for start in range(36):
        for stop in range(start, 36):
            assert np.array_equal(tensor.read(start, stop), whole[start:stop])


def test_transposed_factors_give_the_transposed_change():
    """(B A)^T = A^T B^T, as for weights that are [inputs, outputs]."""
    base, left, right = random(5, 7), random(5, 4, seed=1), random(4, 7, seed=2)
    plain = low_rank(stored(base), stored(left), stored(right), 0.7).read(0, 35).reshape(5, 7)
    swapped = low_rank(stored(base.T.contiguous()), transposed(stored(right)), transposed(stored(left)), 0.7)
    assert np.allclose(swapped.read(0, 35).reshape(7, 5).T, plain, rtol=1e-6)


def test_a_base_of_other_shape_has_the_same_elements():
    """A convolution's weight of four dimensions takes a product of two."""
    base, left, right = random(3, 2, 2, 2), random(3, 2, seed=1), random(2, 8, seed=2)
    tensor = low_rank(stored(base), stored(left), stored(right), 1.0)
    assert tensor.info.shape == (3, 2, 2, 2)
    wanted = (base.double() + (left.double() @ right.double()).view(3, 2, 2, 2)).float()
    assert torch.equal(as_tensor(tensor.info, tensor.read(0, 24)), wanted)


def test_no_elements_are_no_work():
    """An empty span is empty."""
    tensor = low_rank(stored(random(5, 7)), stored(random(5, 4)), stored(random(4, 7)), 1.0)
    assert tensor.read(3, 3).shape == (0,)
    assert BY_NAME["F32"] == tensor.info.dtype

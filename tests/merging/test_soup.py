"""Soups of tensors are their closed form in float64, rounded once, whichever elements are read, in flat memory."""

import tracemalloc
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import BY_NAME, BY_TORCH, TensorInfo
from mergekit_wise.checkpoint.derived import InMemory
from mergekit_wise.checkpoint.tensors import Tensor
from mergekit_wise.merging import soup as module
from mergekit_wise.merging.soup import averaged, mean_cosine, stock_share
from mergekit_wise.merging.torch_backend import as_stored, as_tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def stored(tensor):
    """A torch tensor as a tensor of a checkpoint."""
    info, elements = as_stored("x", tensor.reshape(-1))
    return InMemory(TensorInfo("x", info.dtype, tuple(tensor.shape)), elements)


def random(count, shape, dtypes, seed=0):
    """A start, and members beside it in these dtypes, in turn."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator)
    shared = torch.randn(shape, generator=generator)
    members = [
        (start + 0.1 * shared + 0.1 * torch.randn(shape, generator=generator)).to(dtypes[number % len(dtypes)])
        for number in range(count)
    ]
    return start.to(dtypes[0]), members


def read(tensor):
    """All elements, as a torch tensor."""
    return as_tensor(tensor.info, tensor.read(0, tensor.info.count))


def as_float64(tensor):
    return tensor.double().numpy().ravel()


def rounded(numbers, dtype, shape):
    """Rational numbers rounded once to a dtype: the nearest of its values, of two as near the one with an even code."""
    guesses = torch.tensor([float(number) for number in numbers], dtype=torch.float64).to(dtype)
    found = []
    for number, guess in zip(numbers, guesses, strict=True):
        code = guess.reshape(1).view(torch.int16)
        near = [torch.tensor([int(code) + step], dtype=torch.int16) for step in (-1, 0, 1)]
        exact = [(abs(Fraction(float(each.view(dtype))) - number), int(each) & 1, int(each)) for each in near]
        found.append(min(exact)[2])
    return torch.tensor(found, dtype=torch.int16).view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (4, 3, 2, 2), (0, 3)], ids=str)
def test_the_uniform_soup_is_the_mean_in_float64_rounded_once(shape, count, dtype):
    """For every dtype, shape and number of members, the mean is NumPy's of the numbers in float64, then rounded."""
    _, members = random(count, shape, [dtype])
    found = read(averaged([stored(member) for member in members]))
    mean = np.mean([as_float64(member) for member in members], axis=0)
    assert found.dtype == dtype
    assert torch.equal(found, torch.from_numpy(mean).to(dtype).reshape(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mean_is_rounded_once_and_not_by_way_of_float32(dtype):
    """Means that float32 would round onto a tie of the narrow dtype are rounded as rational numbers are."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0x3C00, 0x3F00, (3, 2000), generator=generator, dtype=torch.int16)
    members = list(codes.view(dtype))
    exact = [sum(map(Fraction, numbers)) / 3 for numbers in zip(*(m.double().tolist() for m in members), strict=True)]
    found = read(averaged([stored(member) for member in members]))
    assert torch.equal(found, rounded(exact, dtype, (2000,)))


@pytest.mark.parametrize("dtypes", [DTYPES[:2], DTYPES[1:3], DTYPES[2:], DTYPES[:3]], ids=str)
def test_members_of_several_dtypes_are_averaged_in_the_dtype_that_torch_promotes_to(dtypes):
    """The soup of mixed dtypes has the dtype of torch's sum of the members, and the mean's value in it."""
    _, members = random(5, (6, 4), dtypes)
    found = read(averaged([stored(member) for member in members]))
    expected = sum(members[1:], members[0]).dtype
    mean = np.mean([as_float64(member) for member in members], axis=0)
    assert torch.equal(found, torch.from_numpy(mean).to(expected).reshape(6, 4))


@pytest.mark.parametrize("dtypes", [*([dtype] for dtype in DTYPES), DTYPES[:3]], ids=str)
@pytest.mark.parametrize("count", range(1, 6))
def test_model_stock_is_its_closed_form(count, dtypes):
    """Stock is r mean + (1 - r) t0 with r = N c / (1 + (N - 1) c) and c the mean of all pairs' cosines."""
    start, members = random(count, (9, 40), dtypes)
    t0, every = as_float64(start), [as_float64(member) for member in members]
    updates = [member - t0 for member in every]
    pairs = [(a, b) for i, a in enumerate(updates) for b in updates[i + 1 :]]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    c = np.mean(cosines) if cosines else 1.0
    r = count * c / (1 + (count - 1) * c)
    expected = torch.from_numpy(r * np.mean(every, axis=0) + (1 - r) * t0)
    soup = averaged([stored(member) for member in members], stored(start))
    assert soup.share.value() == pytest.approx(r, abs=1e-12)
    assert 0.4 < r <= 1
    if soup.info.dtype == BY_NAME["F64"]:
        assert torch.allclose(read(soup).ravel(), expected, rtol=0, atol=1e-13)
    else:
        assert torch.equal(read(soup).ravel(), expected.to(read(soup).dtype))


def test_the_share_of_model_stock_has_its_limits():
    """The share is 1 for equal updates and for one member, 0 for updates at right angles and beyond."""
    assert stock_share(1.0, 3) == 1.0
    assert stock_share(0.2, 1) == 1.0
    assert stock_share(0.0, 3) == stock_share(-0.4, 3) == 0.0
    assert stock_share(0.5, 2) == pytest.approx(2 / 3)
    assert stock_share(1 + 1e-15, 4) == 1.0


def test_an_update_of_zeros_has_the_cosine_zero_and_all_zeros_are_the_start():
    """A member that did not move counts as at right angles to the others; if none moved, the soup is the start."""
    start, (first, second) = random(2, (50,), [torch.float32])
    a, b = (as_float64(member) - as_float64(start) for member in (first, second))
    c = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    cosine = mean_cosine([stored(first), stored(start), stored(second)], stored(start))
    assert cosine == pytest.approx(c / 3, abs=1e-12)
    assert torch.equal(read(averaged([stored(start)] * 3, stored(start))), start)


def test_the_share_does_not_depend_on_elements_that_are_not_finite():
    """A NaN in one member spoils its element and no other."""
    start, members = random(3, (60,), [torch.float32])
    members[1][0] = start[0]  # an element that adds nothing to the cosines
    without = read(averaged([stored(member) for member in members], stored(start)))
    members[1][0] = float("nan")
    found = read(averaged([stored(member) for member in members], stored(start)))
    assert found[0].isnan()
    assert torch.equal(found[1:], without[1:])


def test_elements_that_all_members_hold_are_copied_bit_by_bit():
    """NaN payloads, negative zeros, infinities and float64 numbers that three do not divide survive."""
    bits = torch.tensor([0x7FC12345, -0x80000000, 0x7F800000, 0x00000001], dtype=torch.int32)
    same = stored(bits.view(torch.float32))
    assert averaged([same] * 3).read(0, 4).tobytes() == same.read(0, 4).tobytes()
    wide = stored(torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert averaged([wide] * 3).read(0, 1000).tobytes() == wide.read(0, 1000).tobytes()


@pytest.mark.parametrize("anchored", [False, True])
def test_the_bytes_do_not_depend_on_which_elements_are_read(anchored, monkeypatch):
    """Any span is the part of the whole, whatever the size of a tile."""
    start, members = random(3, (1000,), [torch.bfloat16])
    parts = [stored(member) for member in members]
    whole = averaged(parts, stored(start) if anchored else None).read(0, 1000)
    soup = averaged(parts, stored(start) if anchored else None)
    spans = [(0, 1), (1, 7), (7, 7), (7, 640), (640, 1000)]
    assert np.concatenate([soup.read(*span) for span in spans]).tobytes() == whole.tobytes()
    if not anchored:
        monkeypatch.setattr(module, "TILE", 64)
        assert averaged(parts).read(0, 1000).tobytes() == whole.tobytes()


@dataclass(frozen=True, slots=True)
class Watched(Tensor):
    """Pseudo-random elements that are made when they are read; the spans that are read, expected and forgotten."""

    seed: int
    spans: list = field(default_factory=list)
    held: list = field(default_factory=list)

    @property
    def files(self):
        return ()

    def read(self, start, stop):
        self.spans.append(stop - start)
        return np.sin(np.arange(start, stop, dtype=np.float32) + self.seed)

    def expect(self, start, stop):
        self.held.append((start, stop))

    def forget(self, start, stop):
        self.held.remove((start, stop))


def watched(seed):
    return Watched(TensorInfo("x", BY_TORCH["float32"], (1 << 18,)), seed)


@pytest.mark.parametrize("anchored", [False, True])
def test_memory_is_flat_in_the_number_of_members_and_no_tensor_is_read_at_once(anchored):
    """Twenty members take no more memory than two; every span is a tile, and is released after it was read."""

    def peak(count):
        parts = [watched(seed) for seed in range(count)]
        soup = averaged(parts, watched(99) if anchored else None)
        tracemalloc.start()
        for start in (0, 1 << 17):
            soup.read(start, start + (1 << 17))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(max(part.spans) for part in parts) <= module.TILE
        assert not any(part.held for part in parts)
        return used

    few, many = peak(2), peak(20)
    assert many < 1.2 * few < 1.2 * (6 << 20)

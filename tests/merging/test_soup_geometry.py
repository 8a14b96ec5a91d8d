"""The geometry of a soup is NumPy's, tells other starts and copies, and is estimated from samples."""

import numpy as np
import pytest
import torch

from mergekit_wise.checkpoint import Soup
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.soup_geometry import SAMPLE, geometry, notes_on_geometry, require_one_start
from mergekit_wise.models.in_memory import open_in_memory
from mergekit_wise.option_types import ModelInMemory


def opened(state, name):
    return open_in_memory(ModelInMemory.of(state, name))


def found(start, members):
    """The geometry of state dicts."""
    opened_members = tuple(opened(member, f"m{number}") for number, member in enumerate(members))
    return geometry(opened(start, "zs"), Soup(opened_members, "uniform", {}), list(start))


def weights(seed, scale=1.0, size=(60, 50)):
    generator = torch.Generator().manual_seed(seed)
    return {
        "fc.weight": scale * torch.randn(size, generator=generator),
        "norm.weight": torch.ones(40),
        "steps": torch.tensor(1),
    }


def moved(start, seed, by=0.1):
    update = weights(seed, by)
    return {**start, "fc.weight": start["fc.weight"] + update["fc.weight"]}


def test_lengths_and_angles_are_those_of_numpy():
    """Relative lengths, angles to the start and angles between updates are computed from all matrices in float64."""
    start = weights(0)
    members = [moved(start, 1), moved(start, 2, 0.3)]
    t0, a, b = (each["fc.weight"].double().numpy().ravel() for each in (start, *members))

    def angle(x, y):
        return np.degrees(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))

    result = found(start, members)
    assert result.lengths == pytest.approx([np.linalg.norm(t - t0) / np.linalg.norm(t0) for t in (a, b)], rel=1e-6)
    assert result.to_start == pytest.approx([angle(t, t0) for t in (a, b)], abs=1e-4)
    assert result.angles[0][1] == pytest.approx(angle(a - t0, b - t0), abs=1e-4)
    assert result.strangers == ()
    assert notes_on_geometry(result, opened(start, "zs")) == []


def test_a_sample_of_a_large_tensor_estimates_its_share():
    """A tensor of a million elements counts as all of its elements, of which a few are looked at."""
    start = {"large.weight": torch.ones(1 << 10, 1 << 10), "small.weight": torch.ones(16, 16)}
    member = {"large.weight": 1.1 * start["large.weight"], "small.weight": 2 * start["small.weight"]}
    count = [tensor.numel() for tensor in start.values()]
    expected = np.sqrt((0.1**2 * count[0] + count[1]) / sum(count))
    assert count[0] > SAMPLE
    assert found(start, [member]).lengths[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("members", ["each another start", "all of one other start", "one stranger"])
def test_members_of_other_starts_are_refused_with_the_numbers(members):
    """Members that do not contain the zero-shot model are refused by name, with the option that allows it."""
    start, other = weights(0), weights(7)
    given = {
        "each another start": [weights(8), weights(9)],
        "all of one other start": [moved(other, 1), moved(other, 2)],
        "one stranger": [moved(start, 1), other],
    }[members]
    result = found(start, given)
    strangers = {"one stranger": (1,)}.get(members, (0, 1))
    assert result.strangers == strangers
    with pytest.raises(MismatchError, match="--allow-other-starts") as error:
        require_one_start(result, opened(start, "zs"))
    text = str(error.value)
    assert all(f"m{number}" in text for number in strangers)
    assert f"= {result.lengths[strangers[0]]:.2f}" in text


def test_copies_and_members_that_did_not_move_are_named():
    """A note names two members that are nearly the same, and one that is the zero-shot model."""
    start = weights(0)
    first = moved(start, 1)
    result = found(start, [first, moved(start, 2), moved(first, 3, 1e-4), start])
    copies, unmoved = result.pairs(0, 1), [number for number, length in enumerate(result.lengths) if length == 0]
    assert (copies, unmoved) == ([(0, 2)], [3])
    notes = notes_on_geometry(result, opened(start, "zs"))
    assert any("m3" in note for note in notes)
    assert any("m0" in note and "m2" in note and "m1" not in note for note in notes)


def test_gains_of_norm_layers_do_not_hide_another_start():
    """Vectors that are alike in all models do not count where there are matrices."""
    start, other = weights(0, 0.02), weights(1, 0.02)
    assert found(start, [other]).strangers == (0,)

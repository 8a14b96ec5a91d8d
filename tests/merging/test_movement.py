"""Tests of how far weights moved, against torch in float64."""

import math

import pytest
import torch

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.merging import movements
from mergekit_wise.progress import silent


def moved(tmp_path, a, b):
    for name, state in (("a", a), ("b", b)):
        torch.save(state, tmp_path / name)
    found = movements(open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "b"), silent)
    return {movement.name: movement for movement in found}


def test_norms_and_cosines_are_torchs(states, tmp_path):
    """Norms and cosines agree for each dtype, and the largest change comes first."""
    found = moved(tmp_path, *states)
    order = [m.relative for m in found.values() if m.relative is not None]
    assert order == sorted(order, reverse=True)
    for name, movement in found.items():
        a, b = (state[name].double().reshape(-1) for state in states)
        if name == "steps":
            assert (movement.relative, movement.equal) == (None, False)
            continue
        assert movement.relative == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-12)
        assert movement.cosine == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), rel=1e-12)
        assert movement.equal == torch.equal(a, b)


def test_a_head_is_compared_class_by_class(tmp_path):
    """Each class has the cosine similarity of its weights."""
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    found = moved(tmp_path, {"classification_head.weight": a}, {"classification_head.weight": b})
    wanted = torch.cosine_similarity(a.double(), b.double()).tolist()
    assert found["classification_head.weight"].by_class == pytest.approx(wanted, rel=1e-12)


def test_weights_that_start_at_zero_moved_infinitely_far(tmp_path):
    """Weights that stay at zero did not move."""
    zero, one = torch.zeros(3), torch.ones(3)
    found = moved(tmp_path, {"grew": zero, "stayed": zero}, {"grew": one, "stayed": zero})
    assert (found["grew"].relative, found["grew"].cosine) == (math.inf, None)
    assert (found["stayed"].relative, found["stayed"].equal) == (0.0, True)

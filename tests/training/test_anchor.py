"""The anchor: a decay of the weights towards those that training starts from, apart from AdamW."""

import numpy as np
import pytest
import torch
from torch import nn

from mergekit_wise.training.optimizer import Optimization, OptimizerStep

RATES = (0.05, 0.1, 0.1, 0.1 * (1 + np.cos(np.pi / 4)) / 2, 0.05)
"""Two steps of warm-up to 0.1, then a cosine over the four that are left of six, of which three are taken."""


def replayed(start, gradients, anchor, decay, factor=1.0):
    """AdamW (Loshchilov and Hutter, algorithm 2) in float64, with the anchor's decay at the start of each step."""
    weights, first, second = start.astype(np.float64), 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        rate = rate * factor
        weights = weights - rate * anchor * (weights - start)
        weights = weights - rate * decay * weights
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weights = weights - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weights


@pytest.mark.parametrize(("anchor", "decay"), [(4.0, 0.0), (4.0, 0.5), (0.3, 0.1)])
def test_steps_are_those_of_a_replay_in_numpy(anchor, decay):
    """Also beside a weight decay, and with a parameter's own factor on the learning rate."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 3, 4))
    parameters = {name: nn.Parameter(torch.from_numpy(start.copy())) for name in ("fast", "slow")}
    settings = Optimization(1, 1, 0.1, warmup=2, weight_decay=decay, clip=0, anchor=anchor)
    optimizer = OptimizerStep(parameters.items(), settings, 6, {"slow": 0.25})
    for gradient in gradients:
        optimizer.step(sum((parameter * torch.from_numpy(gradient)).sum() for parameter in parameters.values()))
    for name, factor in (("fast", 1.0), ("slow", 0.25)):
        expected = replayed(start, gradients, anchor, decay, factor)
        np.testing.assert_allclose(parameters[name].detach().numpy(), expected, rtol=2e-5, atol=2e-6)
        assert np.abs(expected - replayed(start, gradients, 0, decay, factor)).max() > 1e-4


def test_without_gradients_the_way_back_is_geometric():
    """A weight that left its start by 1 is left by the product of 1 - rate x anchor, whatever the start is."""
    parameter = nn.Parameter(torch.tensor([5.0, -2.0]))
    settings = Optimization(1, 1, 0.1, warmup=0, weight_decay=0.0, anchor=2.0)
    optimizer = OptimizerStep([("w", parameter)], settings, total=3)
    with torch.no_grad():
        parameter += 1
    expected = np.float64(1)
    for _ in range(3):
        expected *= 1 - 2.0 * optimizer.rate
        optimizer.step(0 * parameter.sum())
    np.testing.assert_allclose(parameter.detach().numpy() - np.array([5, -2]), expected, rtol=1e-5)


def test_a_start_that_was_not_left_is_kept_to_the_bit():
    """Without gradients nothing moves."""
    parameter = nn.Parameter(torch.randn(100))
    before = parameter.detach().clone()
    optimizer = OptimizerStep([("w", parameter)], Optimization(1, 1, 0.1, 0, weight_decay=0.0, anchor=3.0), total=2)
    optimizer.step(0 * parameter.sum())
    assert torch.equal(parameter.detach(), before)


def test_a_step_that_float16_skips_moves_nothing():
    """Where a gradient overflowed, the scaler skips AdamW's step, and the anchor does not pull either."""
    parameter = nn.Parameter(torch.zeros(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer = OptimizerStep([("w", parameter)], Optimization(1, 1, 0.1, 0, anchor=3.0), 2, scaler=scaler)
    with torch.no_grad():
        parameter += 1
    optimizer.step((parameter * torch.tensor([1.0, float("inf"), 1.0])).sum())
    assert torch.equal(parameter.detach(), torch.ones(3))
    optimizer.step(parameter.sum())
    assert (parameter < 1).all()

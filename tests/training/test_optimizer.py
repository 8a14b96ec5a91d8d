"""AdamW under a schedule: rates have closed forms, gradients a largest norm, and only matrices decay."""

import math

import pytest
import torch
from torch import nn

from mergekit_wise.training.optimizer import Optimization, OptimizerStep
from mergekit_wise.training.schedule import cosine_with_warmup


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (4 + 25, (1 + math.sqrt(0.5)) / 2),
        (4 + 50, 0.5),
        (4 + 75, (1 - math.sqrt(0.5)) / 2),
        (4 + 99, (1 + math.cos(0.99 * math.pi)) / 2),
    ],
)
def test_the_schedule_warms_up_and_then_is_half_a_cosine(step, factor):
    """Four steps of warm-up, then a hundred whose quarters are known in closed form."""
    assert cosine_with_warmup(step, 104, 4) == pytest.approx(factor, abs=1e-12)


def test_no_warmup_starts_at_the_peak():
    """Nothing is divided by zero."""
    assert cosine_with_warmup(0, 10, 0) == 1.0


def test_steps_are_torchs_adamw_with_clipped_gradients():
    """The same as writing it out with torch's own optimiser, scheduler and clipping."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    stepper = OptimizerStep(ours.named_parameters(), Optimization(1, 1, 0.1, warmup=2, weight_decay=0.3), total=6)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: cosine_with_warmup(step, 6, 2))
    for _ in range(6):
        images = torch.randn(4, 5) * 10
        stepper.step(ours(images).square().sum())
        adamw.zero_grad()
        theirs(images).square().sum().backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 1.0) > 1
        adamw.step()
        scheduler.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert stepper.taken == 6


def test_gains_and_biases_do_not_decay():
    """With no gradient but zeros, a matrix shrinks by lr x decay and a vector stays."""
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    stepper = OptimizerStep(
        [("m", matrix), ("v", vector)], Optimization(1, 1, 0.1, warmup=0, weight_decay=0.5), total=1
    )
    stepper.step(0 * matrix.sum() + 0 * vector.sum())
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))
    assert torch.equal(vector, torch.ones(2))


def test_frozen_parameters_are_left_alone():
    """Not even decayed."""
    frozen, free = nn.Parameter(torch.ones(2, 2), requires_grad=False), nn.Parameter(torch.ones(2, 2))
    OptimizerStep([("frozen", frozen), ("free", free)], Optimization(1, 1, 0.1, warmup=0), total=1).step(
        (frozen * free).sum()
    )
    assert torch.equal(frozen, torch.ones(2, 2))
    assert not torch.equal(free, torch.ones(2, 2))


def test_factors_scale_the_rate_of_their_parameters():
    """The first step of AdamW moves a weight by the rate, whatever the gradient's length."""
    fast, slow = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    stepper = OptimizerStep([("fast", fast), ("slow", slow)], Optimization(1, 1, 0.1, 0), 1, {"slow": 0.25})
    stepper.step((fast + slow).sum())
    torch.testing.assert_close(fast.detach(), torch.full((3,), -0.1))
    torch.testing.assert_close(slow.detach(), torch.full((3,), -0.025))


def test_a_restored_optimiser_goes_on_bit_for_bit():
    """From its moments and the number of steps, into parameters that were moved to where it was."""

    def run(stepper, parameter, numbers):
        for number in numbers:
            stepper.step(((parameter - number) ** 2).sum())

    def fresh(values):
        parameter = nn.Parameter(values.clone())
        return parameter, OptimizerStep([("w", parameter)], Optimization(1, 1, 0.05, warmup=3), total=10)

    whole, stepper = fresh(torch.arange(6.0).view(2, 3))
    run(stepper, whole, range(4))
    later, other = fresh(whole.detach())
    other.restore(stepper.taken, {name: tensor.clone() for name, tensor in stepper.moments().items()})
    for parameter, each in ((whole, stepper), (later, other)):
        run(each, parameter, range(4, 10))
    assert torch.equal(whole, later)
    assert other.taken == 10


def test_the_norm_is_that_before_clipping():
    """3, 4 -> 5; after clipping the gradient has length 1."""
    parameter = nn.Parameter(torch.zeros(2))
    stepper = OptimizerStep([("w", parameter)], Optimization(1, 1, 0.1, 0), 1)
    (parameter * torch.tensor([3.0, 4.0])).sum().backward()
    assert stepper.norm().item() == pytest.approx(5)
    assert parameter.grad.norm().item() == pytest.approx(1)

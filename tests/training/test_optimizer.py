"""The optimizer: torch's AdamW with clipped gradients and a choice of what decays, and averages of the weights."""

import pytest
import torch
from torch import nn

from mergekit_wise.training.checkpointer import load_state, save_state
from mergekit_wise.training.learning_rate import cosine_with_warmup
from mergekit_wise.training.optimizer import MovingAverage, Optimization, OptimizerStep


def test_steps_are_torchs_adamw_with_clipped_gradients():
    """The steps are those of torch's own optimizer, scheduler and clipping."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    optimizer = OptimizerStep(ours.named_parameters(), Optimization(1, 1, 0.1, warmup=2, weight_decay=0.3), total=6)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: cosine_with_warmup(step, 6, 2))
    for _ in range(6):
        images = torch.randn(4, 5) * 10
        optimizer.step(ours(images).square().sum())
        adamw.zero_grad()
        theirs(images).square().sum().backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 1.0) > 1
        adamw.step()
        scheduler.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert optimizer.taken == 6


def test_the_groups_of_the_authors_code_decay_everything():
    """Weights, gains and biases are those of one AdamW over all parameters, as in mlfoundations/wise-ft."""
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = OptimizerStep(ours.named_parameters(), Optimization(1, 1, 0.1, warmup=0, weight_decay=0.3), total=4)
    params = [p for p in theirs.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(params, lr=0.1, weight_decay=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: cosine_with_warmup(step, 4, 0))
    for _ in range(4):
        images = torch.randn(6, 5)
        optimizer.step(ours(images).square().sum())
        adamw.zero_grad()
        theirs(images).square().sum().backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        adamw.step()
        scheduler.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("decay", "vector_after"), [("all", 0.95), ("matrices", 1.0)])
def test_what_decays_can_be_chosen(decay, vector_after):
    """With no gradient but zeros, what decays shrinks by lr x decay and the rest stays."""
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    settings = Optimization(1, 1, 0.1, warmup=0, weight_decay=0.5, decay=decay)
    OptimizerStep([("m", matrix), ("v", vector)], settings, total=1).step(0 * matrix.sum() + 0 * vector.sum())
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))
    torch.testing.assert_close(vector.detach(), torch.full((2,), vector_after))


def test_a_clip_of_0_clips_nothing():
    """The steps are those of AdamW on the whole gradient, and the norm is still reported."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = OptimizerStep(ours.named_parameters(), Optimization(1, 1, 0.1, 0, weight_decay=0.0, clip=0), total=1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.0)
    images = torch.randn(4, 5) * 10
    for module in (ours, theirs):
        module(images).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
    assert optimizer.norm().item() == pytest.approx(expected.item())
    optimizer.apply()
    adamw.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert ours.weight.grad.norm() > 1


def test_frozen_parameters_are_left_alone():
    """Parameters without gradient are not changed, not even decayed."""
    frozen, free = nn.Parameter(torch.ones(2, 2), requires_grad=False), nn.Parameter(torch.ones(2, 2))
    OptimizerStep([("frozen", frozen), ("free", free)], Optimization(1, 1, 0.1, warmup=0), total=1).step(
        (frozen * free).sum()
    )
    assert torch.equal(frozen, torch.ones(2, 2))
    assert not torch.equal(free, torch.ones(2, 2))


def test_factors_scale_the_rate_of_their_parameters():
    """The first step of AdamW moves a weight by the rate, whatever the gradient's length."""
    fast, slow = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = OptimizerStep([("fast", fast), ("slow", slow)], Optimization(1, 1, 0.1, 0), 1, {"slow": 0.25})
    optimizer.step((fast + slow).sum())
    torch.testing.assert_close(fast.detach(), torch.full((3,), -0.1))
    torch.testing.assert_close(slow.detach(), torch.full((3,), -0.025))


def test_a_restored_optimiser_goes_on_bit_for_bit():
    """Moments, number of steps and weights are all that the following steps depend on."""

    def run(optimizer, parameter, numbers):
        for number in numbers:
            optimizer.step(((parameter - number) ** 2).sum())

    def fresh(values):
        parameter = nn.Parameter(values.clone())
        return parameter, OptimizerStep([("w", parameter)], Optimization(1, 1, 0.05, warmup=3), total=10)

    whole, optimizer = fresh(torch.arange(6.0).view(2, 3))
    run(optimizer, whole, range(4))
    later, other = fresh(whole.detach())
    other.restore(optimizer.taken, {name: tensor.clone() for name, tensor in optimizer.moments().items()})
    for parameter, each in ((whole, optimizer), (later, other)):
        run(each, parameter, range(4, 10))
    assert torch.equal(whole, later)
    assert other.taken == 10


def test_a_restored_run_of_channels_last_weights_goes_on_bit_for_bit(tmp_path):
    """Moments and averages that went through a file have the layout of the weights, which fused AdamW relies on."""

    def fresh():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
        module.to(memory_format=torch.channels_last)
        optimizer = OptimizerStep(module.named_parameters(), Optimization(1, 1, 0.05, warmup=2, anchor=1.0), total=6)
        return module, optimizer, MovingAverage(module.named_parameters(), 0.9)

    def run(module, optimizer, average, steps):
        for step in steps:
            images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.step(module(images.contiguous(memory_format=torch.channels_last)).square().sum())
            average.update()

    run(*(whole := fresh()), range(3))
    later = fresh()
    averages = {f"average.{name}": tensor for name, tensor in whole[2].tensors.items()}
    save_state(tmp_path / "state.safetensors", whole[0].state_dict() | averages | whole[1].moments(), {})
    stored, _ = load_state(tmp_path / "state.safetensors")
    with torch.no_grad():
        for name, parameter in later[0].named_parameters():
            parameter.copy_(stored[name])
    later[1].restore(3, stored)
    later[2].restore({name: stored[f"average.{name}"] for name in later[2].tensors})
    for each in (whole, later):
        run(*each, range(3, 6))
    assert not later[0][0].weight.is_contiguous()
    for name, parameter in whole[0].named_parameters():
        assert torch.equal(parameter, later[0].get_parameter(name))
        assert torch.equal(whole[2].tensors[name], later[2].tensors[name])


def test_the_norm_is_that_before_clipping():
    """The gradient (3, 4) has norm 5 before clipping and 1 after it."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = OptimizerStep([("w", parameter)], Optimization(1, 1, 0.1, 0), 1)
    (parameter * torch.tensor([3.0, 4.0])).sum().backward()
    assert optimizer.norm().item() == pytest.approx(5)
    assert parameter.grad.norm().item() == pytest.approx(1)


def test_the_average_is_a_geometric_sum():
    """The average equals its closed form in float64, and frozen parameters have no average."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator) for _ in range(6)]
    parameter, frozen = nn.Parameter(weights[0].clone()), nn.Parameter(torch.ones(2), requires_grad=False)
    average = MovingAverage([("w", parameter), ("frozen", frozen)], decay=0.8)
    for later in weights[1:]:
        with torch.no_grad():
            parameter.copy_(later)
        average.update()
    expected = 0.8**5 * weights[0].double()
    for age, later in enumerate(reversed(weights[1:])):
        expected += 0.2 * 0.8**age * later.double()
    assert average.tensors.keys() == {"w"}
    torch.testing.assert_close(average.tensors["w"].double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(parameter.detach(), weights[-1])


def test_restored_averages_go_on():
    """A restored average continues exactly like the original."""
    parameter = nn.Parameter(torch.zeros(3))
    first, second = (MovingAverage([("w", parameter)], decay=0.5) for _ in range(2))
    for value in (1.0, 2.0):
        parameter.data.fill_(value)
        first.update()
    second.restore(first.tensors)
    parameter.data.fill_(5.0)
    first.update()
    second.update()
    assert torch.equal(first.tensors["w"], second.tensors["w"])

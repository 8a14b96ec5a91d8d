"""The moving average is the sum that its definition says."""

import torch
from torch import nn

from mergekit_wise.training.average import Average


def test_the_average_is_a_geometric_sum():
    """Of the first weights and each later ones, in float64; frozen parameters have none."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator) for _ in range(6)]
    parameter, frozen = nn.Parameter(weights[0].clone()), nn.Parameter(torch.ones(2), requires_grad=False)
    average = Average([("w", parameter), ("frozen", frozen)], decay=0.8)
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
    """As if nothing had happened."""
    parameter = nn.Parameter(torch.zeros(3))
    first, second = (Average([("w", parameter)], decay=0.5) for _ in range(2))
    for value in (1.0, 2.0):
        parameter.data.fill_(value)
        first.update()
    second.restore(first.tensors)
    parameter.data.fill_(5.0)
    first.update()
    second.update()
    assert torch.equal(first.tensors["w"], second.tensors["w"])

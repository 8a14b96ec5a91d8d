"""A module is found within its wrappers, and is put back bit by bit, whatever a measurement did to it."""

import random

import numpy as np
import pytest
import timm.utils
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.modules import restored, unwrapped
from tests.integrations.networks import careless, everything, network


def draws():
    return torch.rand(4).tolist(), np.random.random(4).tolist(), [random.random() for _ in range(4)]


def test_nothing_that_the_block_did_is_left():
    """Values, dtypes, buffers, gradients, modes, what is frozen, and the next random numbers are those of before."""
    module = network()
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    module.norm.eval()
    with torch.no_grad():
        module.head.bias.copy_(torch.tensor([-0.0, torch.nan, torch.inf]))
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = draws()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    (before, modes), places = everything(module), [each.data_ptr() for each in module.parameters()]
    with restored(module):
        careless(module)
        assert module.head.weight.dtype == torch.float64
    after, modes_after = everything(module)
    for (name, value, *facts), (name_after, value_after, *facts_after) in zip(before, after, strict=True):
        assert (name, value.dtype, facts[0]) == (name_after, value_after.dtype, facts_after[0])
        assert facts[1] is facts_after[1]
        assert value.numpy().tobytes() == value_after.numpy().tobytes()
    assert modes == modes_after
    assert [each.data_ptr() for each in module.parameters()] == places
    assert draws() == expected


def test_it_is_put_back_after_an_error():
    """An exception of the block passes through, and the weights are as before."""
    module = network()
    before = module.head.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), restored(module):
        module.head.weight.data.zero_()
        raise ZeroDivisionError
    assert torch.equal(module.head.weight, before)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, AveragedModel, timm.utils.ModelEmaV3, lambda m: nn.DataParallel(torch.compile(m))],
)
def test_the_module_is_found_within_wrappers(wrap):
    """Parallel, compiled and averaging wrappers give the module that they hold; a part is found within it."""
    module = network()
    found = unwrapped(wrap(module))
    assert type(found) is type(module)
    assert found.state_dict().keys() == module.state_dict().keys()
    assert type(unwrapped(wrap(module), "head")) is nn.Linear


def test_what_cannot_be_mixed_is_refused():
    """A part that is not there, weights without values and sharded weights have a sentence each."""
    with pytest.raises(UsageError, match="no such submodule. Its parts are conv, norm"):
        unwrapped(network(), "model")
    with pytest.raises(UsageError, match="meta device"), torch.device("meta"):
        unwrapped(nn.Linear(2, 2))
    partitioned = nn.Linear(2, 2)
    partitioned.weight.ds_id = 3  # as DeepSpeed marks it
    with pytest.raises(UsageError, match="only a part of the parameter weight.*wise sweep"):
        unwrapped(partitioned)
    with pytest.raises(UsageError, match="found dict"):
        unwrapped({})


def test_a_distributed_tensor_is_refused(tmp_path):
    """A parameter that FSDP 2 or tensor parallelism distributes is refused, in a group of one process."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        module, mesh = nn.Linear(2, 2), init_device_mesh("cpu", (1,))
        module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(UsageError, match="only a part of the parameter weight"):
            unwrapped(module)
    finally:
        distributed.destroy_process_group()

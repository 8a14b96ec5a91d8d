"""The module inside a trainer's wrappers, and putting it back exactly as it was. Knows no trainer and no alpha."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mergekit_wise.errors import UsageError

_SHARDED = (
    "This process holds only a part of {}, so its mixtures cannot be computed here. Let the trainer save a full "
    "checkpoint, and use 'wise sweep' or 'wise merge' afterwards."
)


def unwrapped(model: nn.Module, part: str = "") -> nn.Module:
    """The module inside the wrappers of DataParallel, DDP, Accelerate, `torch.compile`, and of averages (EMA, SWA).

    `part` is the dotted name of a submodule of it to take instead, as for ``get_submodule``. Raises UsageError if
    parameters are sharded (FSDP, DeepSpeed, tensor parallelism) or have no values, or if there is no such part.
    """
    module = _inside(model)
    if part:
        try:
            module = _inside(module.get_submodule(part))
        except AttributeError as error:
            names = ", ".join(name for name, _ in module.named_children())
            raise UsageError(
                f"part={part!r}: {type(module).__name__} has no such submodule. Its parts are {names}."
            ) from error
    for name, parameter in module.named_parameters():
        # DeepSpeed marks parameters that it partitions; it need not be installed here.
        if isinstance(parameter, DTensor) or "ds_id" in vars(parameter):
            raise UsageError(_SHARDED.format(f"the parameter {name}"))
        if parameter.device.type == "meta":
            raise UsageError(f"The parameter {name} is on the meta device. Load the weights before training.")
    return module


def _inside(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a torch.nn.Module, found {type(model).__name__}.")
    holders: tuple[Any, ...] = (DistributedDataParallel, DataParallel, AveragedModel)
    if ema := sys.modules.get("timm.utils"):  # imported already by whoever made one of these
        holders += (ema.ModelEmaV2, ema.ModelEmaV3)
    compiled: tuple[Any, ...] = ()
    if dynamo := sys.modules.get("torch._dynamo.eval_frame"):
        compiled = (dynamo.OptimizedModule,)
    while True:
        if isinstance(model, FullyShardedDataParallel) or type(model).__module__.startswith("deepspeed."):
            raise UsageError(_SHARDED.format(f"the model ({type(model).__name__})"))
        if isinstance(model, holders):
            model = model.module
        elif isinstance(model, compiled):
            model = model._orig_mod
        else:
            return model


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Whatever the block does to a module, leave it and the random-number generators as they were, bit by bit.

    That are the values, dtypes and devices of parameters and buffers, gradients, what requires them, and training
    modes. Parameters stay the same objects, in the same memory, so that an optimizer notices nothing. The values are
    kept on the CPU. Within the block no parameter has a gradient.
    """
    modes = [(each, each.training) for each in module.modules()]
    parameters = [(each, each.data, each.requires_grad, each.grad, _copy(each)) for each in module.parameters()]
    buffers = [(name, each, _copy(each)) for name, each in module.named_buffers(remove_duplicate=False)]
    python, legacy = random.getstate(), np.random.get_state()
    for parameter in module.parameters():
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        with torch.no_grad():
            for parameter, data, requires_grad, gradient, values in parameters:
                parameter.grad = None  # of another dtype or device it would not fit
                parameter.data = data.copy_(values)
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for name, buffer, values in buffers:
                owner, _, leaf = name.rpartition(".")
                setattr(module.get_submodule(owner), leaf, buffer.copy_(values))
        for each, training in modes:
            each.training = training


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)

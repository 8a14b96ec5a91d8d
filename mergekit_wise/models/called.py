"""A user's own module as a model: it is called as it is, whatever its architecture. Knows no data set."""

import copy
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.called_module import CalledModule, logits_of
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.live import is_two_tower, unwrapped
from mergekit_wise.models.model import Model
from mergekit_wise.models.own_transform import OwnTransform
from mergekit_wise.models.structure import structure_of
from mergekit_wise.option_types import ModelInMemory
from mergekit_wise.wording import listed

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip", "transformers")


def module_to_call(*sources: Any) -> nn.Module | None:
    """The first of these models in memory that is a module and gives logits by itself, as two towers do not."""
    modules = [source.weights for source in sources if isinstance(source, ModelInMemory)]
    return next((unwrapped(one) for one in modules if isinstance(one, nn.Module) and not is_two_tower(one)), None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode within the block, and each of its parts in its own mode afterwards."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def copied(module: nn.Module) -> nn.Module:
    """A copy whose weights can be set. Raises ModelError for a module that cannot be copied."""
    try:
        return copy.deepcopy(module).requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"A sweep sets weights in a copy, and this {type(module).__name__} cannot be copied: "
            f"{_first_line(error)} Detach tensors that it keeps between calls, or give two files."
        ) from error


def open_called(module: nn.Module, template: Checkpoint, transform: OwnTransform, *, holds: bool) -> Model:
    """A module of the user's, on its device and in evaluation mode, as a model with as many classes as it has logits.

    Args:
        module: it is called as it is; with `holds`, no weights are set.
        template: the tensors that are set or hashed, under the module's own names.
        transform: that was tried on an image.
        holds: whether the module holds the weights that are evaluated.

    Raises ModelError if it gives no logits, or if the names are not those of its tensors.
    """
    names = module.state_dict()
    if differing := sorted(template.tensors.keys() ^ names.keys()):
        raise ModelError(
            f"{template.path}: the module that is called has other tensors than the mixture, such as "
            f"{listed(differing, 3)}. Give two modules of one class."
        )
    called = CalledModule(module, _count_of_logits(module, transform.shape, str(template.path))).eval()
    return Model(
        build=lambda: called,
        preprocess=transform.facts,
        architecture=f"{_identity(module)} (from the module, which is called as it is)",
        config={},
        destinations={name: Destination(f"inner.{name}") for name in names},
        has_own_head=True,
        own_classes=called.classes,
        class_names=declared_class_names(template),
        holds_weights=holds,
    )


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's tensors. Raises ModelError if they are on several."""
    devices = {each.device for each in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        raise ModelError(f"The module is on several devices: {', '.join(sorted(map(str, devices)))}. Move it to one.")
    return devices.pop() if devices else torch.device("cpu")


def _count_of_logits(module: nn.Module, shape: tuple[int, ...], source: str) -> int:
    """The number of logits for an image of this shape, tried with zeros."""
    kind = type(module).__name__
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    images = torch.zeros(2, *shape, dtype=dtype, device=device_of(module))
    try:
        with torch.inference_mode():
            return int(logits_of(module(images), 2).shape[1])
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        raise ModelError(
            f"{source}: {kind} cannot be called with images of shape [B, {', '.join(map(str, shape))}], which is what "
            f"`transform` makes: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _identity(module: nn.Module) -> str:
    """The class, and a digest of what the module computes besides its weights: parts and the code of their classes.

    Where the code of a class cannot be read, as of one that was typed at a prompt, a text that no other run has.
    """
    facts, name = [repr(structure_of(module))], f"{type(module).__module__}.{type(module).__qualname__}"
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        if kind.__module__.partition(".")[0] in _LIBRARIES:
            facts.append(f"{kind.__module__}.{kind.__qualname__}")
            continue
        try:
            facts.append(inspect.getsource(kind))
        except (OSError, TypeError):
            facts.append(_of_this_run(id(kind)))
    return f"{name} {hashlib.sha256(''.join(facts).encode()).hexdigest()[:12]}"


@cache
def _of_this_run(number: int) -> str:
    """A text that is the same for a class, by its `id`, within this process, and in no other."""
    return uuid4().hex

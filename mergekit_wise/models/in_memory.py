"""A model in memory as a checkpoint: its tensors are read where they are. Imports torch for such models alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import BY_TORCH, StorageArray, Tensor, check_name
from mergekit_wise.checkpoint.wrappers import without_wrappers
from mergekit_wise.errors import CheckpointError, ModelError
from mergekit_wise.models.live import declared_by, unwrapped
from mergekit_wise.option_types import ModelInMemory, Weights
from mergekit_wise.wording import shown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class LiveTensor(Tensor):
    """A torch tensor, dense and 1-D, on any device; what is read are its values at that moment."""

    elements: "torch.Tensor"

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """None."""
        return ()

    def read(self, start: int, stop: int) -> StorageArray:
        """A view on the CPU, a copy from another device."""
        from mergekit_wise.merging.torch_backend import as_stored

        return as_stored(self.info.name, self.elements[start:stop])[1]


def open_in_memory(source: ModelInMemory) -> Checkpoint:
    """The tensors of a module or a state dict, which may change until they are read; the module stays as it is.

    The metadata is what a module of a known library declares of itself. Tensors that do not lie densely are copied.
    Raises CheckpointError for entries that are no tensors, or whose values are not there.
    """
    state = state_of(source)
    tensors: dict[str, Tensor] = {name: _tensor(source, name, value) for name, value in state.items()}
    if not tensors:
        raise CheckpointError(f"{source}: has no tensors.")
    if parts := [name for name in tensors if ".parametrizations." in f".{name}"]:
        raise CheckpointError(
            f"{source}: {parts[0]!r} is a part of a parametrization, and mixing parts is not mixing the weights that "
            "they make. Remove it from a copy: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
        )
    weights = source.weights
    metadata = source.metadata if isinstance(weights, Mapping) else declared_by(unwrapped(weights)).metadata
    facts = "".join(f"{name} {each.info.dtype} {each.info.shape}\n" for name, each in tensors.items())
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return without_wrappers(Checkpoint(Path(source), "in memory", tensors, metadata, digest))


def state_of(source: ModelInMemory) -> "Mapping[str, torch.Tensor]":
    """The state dict of a model in memory, without the wrapper of a compiled or parallel module."""
    return source.weights if isinstance(source.weights, Mapping) else unwrapped(source.weights).state_dict()


def require_evaluable(source: "Weights | None", model: str | None) -> None:
    """Raise ModelError if a module's weights do not say what it computes, and no architecture is named for them."""
    if not isinstance(source, ModelInMemory) or isinstance(source.weights, Mapping) or model is not None:
        return
    if problem := declared_by(unwrapped(source.weights)).problem:
        raise ModelError(f"{source}: {problem}.")


def _tensor(source: ModelInMemory, name: Any, value: Any) -> LiveTensor:
    import torch

    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise CheckpointError(_refusal(source, name, value))
    if torch.nn.parameter.is_lazy(value):
        raise CheckpointError(f"{source}: {shown(name)!r} has no shape yet. Call the module on a batch before.")
    value = value.detach()
    if type(value) is not torch.Tensor:
        raise CheckpointError(
            f"{source}: {shown(name)!r} is a {type(value).__name__}, a tensor of another kind (quantized, or spread "
            "over processes). Give a state dict of ordinary tensors: dequantized, or gathered with .full_tensor()."
        )
    dtype = BY_TORCH.get(str(value.dtype).removeprefix("torch."))
    if dtype is None or value.layout != torch.strided or value.device.type == "meta":
        raise CheckpointError(
            f"{source}: {shown(name)!r} is {_described(value)}, whose elements cannot be read. Load the weights, in "
            "ordinary tensors, before."
        )
    try:
        check_name(name)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}.") from None
    return LiveTensor(TensorInfo(name, dtype, tuple(value.shape)), value.contiguous().reshape(-1))


def _refusal(source: ModelInMemory, name: Any, value: Any) -> str:
    """What a state dict holds in the place of a tensor, and what to give."""
    what = f"of type {type(value).__name__}" if isinstance(name, str) else "whose name is no text"
    found = f"{source}: holds {shown(str(name))!r}, an entry {what}, where only tensors are expected."
    if isinstance(value, np.ndarray):
        return f"{found} Convert arrays with torch.from_numpy."
    entries = source.weights if isinstance(source.weights, Mapping) else {}
    inner = {key: entry for key, entry in entries.items() if isinstance(entry, Mapping)}
    weights = [key for key, entry in inner.items() if any(type(each).__name__ == "Tensor" for each in entry.values())]
    return f"{found} Give the state dict alone, such as checkpoint[{str(next(iter((*weights, *inner)), 'model'))!r}]."


def _described(tensor: "torch.Tensor") -> str:
    where = " on the meta device" if tensor.device.type == "meta" else ""
    return f"a tensor of dtype {tensor.dtype} and layout {tensor.layout}{where}"

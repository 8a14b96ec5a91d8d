"""Merged weights in memory, with the bytes that a merged file would hold. Imports torch."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mergekit_wise.api.merge import (
    geometry_of,
    memory_budget,
    merge_rules,
    notes_on_memory,
    notes_on_outcomes,
    opened_merge,
    require_finite,
    sink_of,
    with_statistics,
    without_collecting,
)
from mergekit_wise.checkpoint.tensors import StorageArray, TensorInfo
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Mixer, Outcome, open_backend, relative_distance
from mergekit_wise.merging.soup_geometry import Geometry
from mergekit_wise.merging.stream import stream
from mergekit_wise.merging.torch_backend import torch_dtype
from mergekit_wise.option_types import ModelInMemory
from mergekit_wise.options import MergeOptions


class StateDict(OrderedDict[str, torch.Tensor]):
    """Merged weights by name, as ``module.load_state_dict`` takes them; pickled and saved as an ordinary dictionary.

    Attributes:
        metadata: what a merged file would record: the architecture, and how the weights were made.
        outcomes: what happened to each tensor.
        distance: as in a `MergeReport`.
        notes: what was changed, left out or decided on the way, one sentence each.
        geometry: as in a `MergeReport`.
    """

    metadata: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    distance: float | None
    notes: tuple[str, ...]
    geometry: Geometry | None

    def __reduce__(self) -> Any:
        """Files that are saved with `torch.save` must not need this package."""
        return OrderedDict(self).__reduce__()

    def __repr__(self) -> str:
        elements = sum(tensor.numel() for tensor in self.values())
        return f"<StateDict of {len(self):,} tensors, {elements:,} elements>"


@without_collecting()
def merged_state(options: MergeOptions) -> StateDict:
    """What `merge` would write, in memory, on the device that the inputs in memory share; the CPU for files.

    Raises what `merge` raises, and UsageError if the inputs are on several devices.
    """
    device = _shared_device(options)
    backend = open_backend(options.device, memory_budget(options))
    with opened_merge(options) as job:
        geometry, unusual = geometry_of(job.pair, merge_rules(options), options)
        mixer = Mixer(job.pair, backend, job.fishers)
        (job,), (recalibrated,) = with_statistics([job], mixer)
        tensors = {step.info.name: _empty(step.info) for step in job.plan}
        elements = {name: tensor.reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()}

        def put(name: str, start: int, data: StorageArray) -> None:
            elements[name][start : start + data.nbytes] = data.reshape(-1).view("u1")

        (outcomes,) = stream(mixer, [sink_of(job, list(tensors), put, recalibrated)], options.progress)
        if not options.allow_non_finite:
            require_finite(outcomes)
        for name, data in recalibrated.items():
            put(name, 0, data)
        merged = StateDict((name, tensor.to(device)) for name, tensor in tensors.items())
        merged.metadata, merged.outcomes, merged.distance = job.metadata, outcomes, relative_distance(outcomes)
        slow = notes_on_memory(options, backend, job.plan)
        merged.geometry = geometry
        merged.notes = (*job.notes, *unusual, *slow, *notes_on_outcomes(job, outcomes))
    return merged


def _empty(info: TensorInfo) -> torch.Tensor:
    return torch.empty(info.shape, dtype=torch_dtype(info.dtype))


def _shared_device(options: MergeOptions) -> torch.device:
    sources: Sequence[Any] = (options.zeroshot, *(options.soup or (options.finetuned,)), options.base)
    found = {str(source): _devices(source) for source in sources if isinstance(source, ModelInMemory)}
    devices = set().union(*found.values())
    if len(devices) > 1:
        listed = "; ".join(f"{name} on {', '.join(sorted(map(str, where)))}" for name, where in found.items())
        raise UsageError(f"The models in memory are on several devices: {listed}. Move them to one with .to(device).")
    return devices.pop() if devices else torch.device("cpu")


def _devices(source: ModelInMemory) -> set[torch.device]:
    state = source.weights if isinstance(source.weights, Mapping) else source.weights.state_dict()
    return {tensor.device for tensor in state.values() if isinstance(tensor, torch.Tensor)}

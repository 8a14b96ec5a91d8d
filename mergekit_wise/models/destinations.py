"""Where a tensor of a file goes in a model: into a whole tensor or a part of one, transposed or not.

Knows no tensor names, and moves numbers without knowing their dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.errors import ModelError

StorageArray = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Destination:
    """Part `part` of `parts` equal parts, along the first dimension, of the model's tensor `name`."""

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False

    def target_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the model's tensor, where one of its parts comes from a file's tensor of `shape`."""
        shape = tuple(reversed(shape)) if self.transposed else shape
        return (shape[0] * self.parts, *shape[1:]) if self.parts > 1 and shape else shape

    def oriented(self, storage: StorageArray, shape: tuple[int, ...]) -> StorageArray:
        """A view of a file's tensor of `shape`, given flattened, with its elements ordered as in the model."""
        values = storage.reshape(shape)
        return values.T if self.transposed else values


def converted_tensors(
    checkpoint: Checkpoint, destinations: Mapping[str, Destination]
) -> dict[str, tuple[TensorInfo, StorageArray]]:
    """The checkpoint's tensors under the model's names, parts joined and transposed, in the file's dtypes and bits.

    Tensors that need no change are views of the file. Raises ModelError if the parts of a tensor differ in dtype.
    """
    parts: dict[str, dict[int, str]] = {}
    for name, destination in destinations.items():
        parts.setdefault(destination.name, {})[destination.part] = name
    return {
        target: _joined(checkpoint, destinations, target, [found[i] for i in sorted(found)])
        for target, found in parts.items()
    }


def _joined(
    checkpoint: Checkpoint, destinations: Mapping[str, Destination], target: str, names: list[str]
) -> tuple[TensorInfo, StorageArray]:
    infos = [checkpoint.info(name) for name in names]
    if len({info.dtype for info in infos}) > 1:
        raise ModelError(f"{checkpoint.path}: {', '.join(names)} differ in dtype, but are one tensor of the model.")
    parts = [
        destinations[name].oriented(checkpoint.read(name), info.shape) for name, info in zip(names, infos, strict=True)
    ]
    data = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return TensorInfo(target, infos[0].dtype, data.shape), np.ascontiguousarray(data)

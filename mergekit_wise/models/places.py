"""Where a tensor of a file goes in a model: to a whole tensor of it, or a part of one, transposed or not.

Knows no names, and moves numbers without knowing their dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.errors import ModelError

StorageArray = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Place:
    """Part `part` of `parts` equal parts, along the first dimension, of the model's tensor `name`."""

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False

    def fills(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the model's tensor, if a part of it comes from a tensor of `shape`."""
        shape = tuple(reversed(shape)) if self.transposed else shape
        return (shape[0] * self.parts, *shape[1:]) if self.parts > 1 and shape else shape

    def turned(self, storage: StorageArray, shape: tuple[int, ...]) -> StorageArray:
        """The elements of a file's tensor of `shape`, given flattened, as they lie in the model's; a view."""
        values = storage.reshape(shape)
        return values.T if self.transposed else values


def in_place(checkpoint: Checkpoint, places: Mapping[str, Place]) -> dict[str, tuple[TensorInfo, StorageArray]]:
    """Tensors of a checkpoint as the model has them: its names, whole and turned, in the file's dtypes and bits.

    Those that need no change are views of the file. Raises ModelError if parts of a tensor differ in dtype.
    """
    parts: dict[str, dict[int, str]] = {}
    for name, place in places.items():
        parts.setdefault(place.name, {})[place.part] = name
    return {
        target: _joined(checkpoint, places, target, [found[i] for i in sorted(found)])
        for target, found in parts.items()
    }


def _joined(
    checkpoint: Checkpoint, places: Mapping[str, Place], target: str, names: list[str]
) -> tuple[TensorInfo, StorageArray]:
    infos = [checkpoint.info(name) for name in names]
    if len({info.dtype for info in infos}) > 1:
        raise ModelError(f"{checkpoint.path}: {', '.join(names)} differ in dtype, but are one tensor of the model.")
    turned = [places[name].turned(checkpoint.read(name), info.shape) for name, info in zip(names, infos, strict=True)]
    data = turned[0] if len(turned) == 1 else np.concatenate(turned)
    return TensorInfo(target, infos[0].dtype, data.shape), np.ascontiguousarray(data)

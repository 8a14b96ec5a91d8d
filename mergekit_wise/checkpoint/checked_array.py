"""One float32 array in a safetensors file, with its checksum: it is read as it was written, or not at all."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.checkpoint import closing
from mergekit_wise.checkpoint.opening import open_checkpoint
from mergekit_wise.checkpoint.safetensors import plan_layout
from mergekit_wise.checkpoint.tensors import BY_NAME, TensorInfo
from mergekit_wise.errors import CheckpointError

NAME, SUM = "values", "sha256"


def write_checked(path: Path, values: NDArray[np.float32], metadata: Mapping[str, str]) -> None:
    """Write a file at `path`, which is nobody's output yet, with texts about the array. Raises OSError."""
    values = np.ascontiguousarray(values)
    layout = plan_layout([TensorInfo(NAME, BY_NAME["F32"], values.shape)], {**metadata, SUM: _sum(values)})
    with path.open("wb") as file:
        file.write(layout.header)
        file.write(values.data)


def read_checked(path: Path) -> tuple[NDArray[np.float32], Mapping[str, str]] | None:
    """The array, as a copy, and the texts; None if the file is missing, damaged or of another kind."""
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError:
        return None
    with closing(checkpoint):
        if set(checkpoint.tensors) != {NAME} or checkpoint.info(NAME).dtype.name != "F32":
            return None
        values = np.array(checkpoint.read(NAME)).view(np.float32).reshape(checkpoint.info(NAME).shape)
        return (values, checkpoint.metadata) if _sum(values) == checkpoint.metadata.get(SUM) else None


def _sum(values: NDArray[np.float32]) -> str:
    return hashlib.sha256(values.data).hexdigest()

"""A run's state in a file: tensors and a few facts. Written whole or not at all; read without executing anything.

Knows nothing of what the tensors are.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mergekit_wise.checkpoint import closing, open_checkpoint, write_safetensors
from mergekit_wise.errors import CheckpointError
from mergekit_wise.merging.torch_backend import as_stored, as_tensor

KEY = "mergekit_wise_training"
"""The metadata entry that holds the facts, as JSON."""


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a safetensors file; an earlier one is replaced only by a whole one. Raises OutputError."""
    write_safetensors(path, {n: as_stored(n, t) for n, t in tensors.items()}, {KEY: json.dumps(facts, sort_keys=True)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote, on the CPU. Raises CheckpointError if the file is damaged, or none of these."""
    checkpoint = open_checkpoint(path)
    with closing(checkpoint):
        try:
            facts = json.loads(checkpoint.metadata[KEY])
        except (KeyError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: holds no state of a run of this tool. Remove it.") from error
        tensors = {name: as_tensor(stored.info, checkpoint.read(name)) for name, stored in checkpoint.tensors.items()}
    return tensors, facts

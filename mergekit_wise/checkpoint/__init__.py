"""Files <-> named tensors. Knows no alpha, no model, no terminal."""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.checkpoint.checkpoint import Checkpoint, Soup, closing
    from mergekit_wise.checkpoint.opening import open_checkpoint
    from mergekit_wise.checkpoint.safetensors import write_safetensors
    from mergekit_wise.checkpoint.shards import OutputPlan, plan_output, write_checkpoint, writing_output
    from mergekit_wise.checkpoint.tensors import BY_NAME, BY_TORCH, DType, TensorInfo
    from mergekit_wise.checkpoint.writing import (
        refuse_overwriting,
        require_folder,
        require_output,
        require_output_folder,
        write_atomically,
    )

__all__ = [
    "BY_NAME",
    "BY_TORCH",
    "Checkpoint",
    "DType",
    "OutputPlan",
    "Soup",
    "TensorInfo",
    "closing",
    "open_checkpoint",
    "plan_output",
    "refuse_overwriting",
    "require_folder",
    "require_output",
    "require_output_folder",
    "write_atomically",
    "write_checkpoint",
    "write_safetensors",
    "writing_output",
]

_NAMES = {
    "checkpoint": ("Checkpoint", "Soup", "closing"),
    "opening": ("open_checkpoint",),
    "safetensors": ("write_safetensors",),
    "shards": ("OutputPlan", "plan_output", "write_checkpoint", "writing_output"),
    "tensors": ("BY_NAME", "BY_TORCH", "DType", "TensorInfo"),
    "writing": ("refuse_overwriting", "require_folder", "require_output", "require_output_folder", "write_atomically"),
}

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)

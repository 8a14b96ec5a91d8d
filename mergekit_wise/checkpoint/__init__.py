"""Files <-> named tensors. Knows no alpha, no model, no terminal."""

from mergekit_wise.checkpoint.checkpoint import Checkpoint, closing
from mergekit_wise.checkpoint.dtypes import BY_NAME, BY_TORCH, DType
from mergekit_wise.checkpoint.opening import open_checkpoint
from mergekit_wise.checkpoint.output import OutputPlan, plan_output, writing_output
from mergekit_wise.checkpoint.tensors import TensorInfo
from mergekit_wise.checkpoint.writer import refuse_overwriting, require_folder, write_safetensors

__all__ = [
    "BY_NAME",
    "BY_TORCH",
    "Checkpoint",
    "DType",
    "OutputPlan",
    "TensorInfo",
    "closing",
    "open_checkpoint",
    "plan_output",
    "refuse_overwriting",
    "require_folder",
    "write_safetensors",
    "writing_output",
]

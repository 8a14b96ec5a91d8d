"""The format in which a checkpoint is written: it follows the ending of its name; without one it is safetensors."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mergekit_wise.checkpoint.safetensors import Layout, plan_layout
from mergekit_wise.checkpoint.tensors import TensorInfo
from mergekit_wise.errors import OutputError

SAFETENSORS = ".safetensors"
TORCH = (".pt", ".pth", ".bin", ".ckpt")

if TYPE_CHECKING:
    from mergekit_wise.checkpoint.torch_writing import TorchLayout

FileLayout: TypeAlias = "Layout | TorchLayout"
PlanFile = Callable[[Iterable[TensorInfo], Mapping[str, str]], FileLayout]


def ending_of(output: Path) -> str:
    """The ending of a name, or "" if it has none; the last part of ``wise-0.5`` is a number."""
    return "" if re.fullmatch(r"\.\d*", output.suffix) else output.suffix


def planner_of(output: Path) -> PlanFile:
    """The function that plans a file in the format that the name asks for. Raises OutputError for other endings."""
    ending = ending_of(output).lower()
    if ending in ("", SAFETENSORS):
        return plan_layout
    if ending in TORCH:
        from mergekit_wise.checkpoint.torch_writing import plan_torch  # what safetensors files do without

        return plan_torch
    raise OutputError(
        f"{output}: checkpoints are not written in a format with the ending {ending}. "
        f"End the name in {SAFETENSORS}, or in {', '.join(TORCH[:-1])} or {TORCH[-1]} for the format of torch.save."
    )

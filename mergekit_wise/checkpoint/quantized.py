"""Quantized weights: which tensors of a checkpoint are parts of one, and restoring those whose values are exact.

The mean of two quantized weights is not the mean of their parts, so parts are never mixed by themselves. Float8 weights
with scales are multiplied out; the product is what the model computes with. Anything else is refused by
`require_no_parts`. Works on checkpoints of any format.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import BY_TORCH, StorageArray, Tensor
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural

FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
"""What ml_dtypes calls 8-bit floats."""

SCALES = ("{}_scale", "{}_scale_inv")
"""Names of a tensor's scales, of compressed-tensors and ModelOpt, and of DeepSeek. All are factors."""

COMFY = "scale_weight"
"""ComfyUI's name of the scale of ``weight``."""

ACTIVATIONS = re.compile(r"(^|\.)(input_scale|scale_input|output_scale|[kqv]_scale|scaled_fp8)$")
"""Scales of activations, and ComfyUI's marker: of no use once the weights are float32."""

BLOCK = 128
"""Rows and columns that share a scale in DeepSeek's files."""

_DECODED = {"F16": "float16", "F32": "float32", "BF16": "bfloat16"}
"""Dtypes of scales, as NumPy or ml_dtypes call them."""

PARTS = {
    "GPTQ or AWQ": re.compile(r"(^|\.)(qweight|qzeros|g_idx)$"),
    "bitsandbytes": re.compile(r"\.((nested_)?(absmax|quant_map)|weight_format)$|(^|\.)SCB$|\.quant_state\."),
    "compressed-tensors": re.compile(r"weight_(packed|zero_point|shape|global_scale)$"),
    "torchao or quanto": re.compile(r"(weight|bias)[._:]+(_?q?data|qtype|tensor_impl)\b"),
}
"""Names of the parts of quantized weights, by what writes them."""

INTEGER_PARTS = re.compile(r"(\.(codes|W_q)|_blocks)$")
"""Names that are parts, of AQLM, HQQ and MXFP4, if they hold integers."""

_SCALE = re.compile(r"[._]?scales?(_inv)?$")


@dataclass(frozen=True, slots=True)
class Scaled(Tensor):
    """A float8 matrix times its scales, as float32; ``block`` is how many (rows, columns) share one of the scales."""

    base: Tensor
    scales: NDArray[np.float32]
    block: tuple[int, int]

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """Those of the matrix."""
        return self.base.files

    def read(self, start: int, stop: int) -> StorageArray:
        """See `Tensor.read`; each product is rounded to float32 once."""
        numbers = self.base.read(start, stop).view(_dtype(FLOAT8[self.base.info.dtype.name])).astype(np.float32)
        if self.scales.size == 1:
            return np.asarray(numbers * self.scales.flat[0])
        width = _columns(self.base)
        places = np.arange(start, stop)
        rows, columns = places // width // self.block[0], places % width // self.block[1]
        return np.asarray(numbers * self.scales[rows, columns])

    def expect(self, start: int, stop: int) -> None:
        """See `Tensor.expect`."""
        self.base.expect(start, stop)

    def forget(self, start: int, stop: int) -> None:
        """See `Tensor.forget`."""
        self.base.forget(start, stop)


def dequantized(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its scaled float8 weights as float32, and a note; itself if it has none.

    A scale belongs to a whole tensor, to each row, or to each block of 128 x 128 elements. Raises CheckpointError if
    the shape of a scale fits none of these, or if a weight has further scales.
    """
    tensors = dict(checkpoint.tensors)
    restored: list[str] = []
    for name, tensor in checkpoint.tensors.items():
        if tensor.info.dtype.name not in FLOAT8 or not tensor.info.count:
            continue
        names = [pattern.format(name) for pattern in SCALES]
        if name == "weight" or name.endswith(".weight"):
            names.append(name.removesuffix("weight") + COMFY)
        found = [scale for scale in names if scale in checkpoint.tensors]
        if not found:
            continue
        if len(found) > 1:
            raise CheckpointError(f"{checkpoint.path}: {name} has several scales ({listed(found)}). {_ADVICE}")
        scales, block = _scales(checkpoint, tensor, found[0])
        tensors[name] = Scaled(replace(tensor.info, dtype=BY_TORCH["float32"]), tensor, scales, block)
        del tensors[found[0]]
        restored.append(name)
    if not restored:
        return checkpoint
    if left := [name for name in tensors if _scaled_format(checkpoint.tensors, name)]:
        raise CheckpointError(f"{checkpoint.path}: does not say what its scales {listed(left, 3)} are for. {_ADVICE}")
    tensors = {name: tensor for name, tensor in tensors.items() if not ACTIVATIONS.search(name)}
    unused = len(checkpoint.tensors) - len(tensors) - len(restored)
    note = f"dequantized {plural(len(restored), 'float8 weight')} to float32 with the scales ({listed(restored, 3)})"
    if unused:
        note += f"; left out {plural(unused, 'scale')} of activations"
    return replace(checkpoint, tensors=tensors, notes=(*checkpoint.notes, note))


_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def quantized_parts(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of the tensors that are parts of quantized weights, by what writes such files."""
    found: dict[str, list[str]] = {}
    # Layers have the same names but for their numbers: most files are settled by a few names.
    kinds = {_LAYER.sub("0", name) for name in tensors}
    patterns = (*PARTS.values(), INTEGER_PARTS)
    if not any("scale" in kind or any(pattern.search(kind) for pattern in patterns) for kind in kinds):
        return found
    for name, tensor in tensors.items():
        for writer, pattern in PARTS.items():
            if pattern.search(name):
                found.setdefault(writer, []).append(name)
        if INTEGER_PARTS.search(name) and tensor.info.dtype.kind == "integer":
            found.setdefault("AQLM, HQQ or MXFP4", []).append(name)
        if scaled := _scaled_format(tensors, name):
            found.setdefault(scaled, []).append(name)
    return found


def require_no_parts(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError that names the parts of quantized weights, if there are any."""
    for writer, names in quantized_parts(checkpoint.tensors).items():
        raise CheckpointError(
            f"{checkpoint.path}: its weights are quantized ({writer}): {plural(len(names), 'tensor')} (such as "
            f"{listed(names, 3)}) hold parts of weights, which cannot be mixed by themselves. {_ADVICE}"
        )


def _scaled_format(tensors: Mapping[str, Tensor], name: str) -> str | None:
    """Which format of weights a scale belongs to, by its name; None for other tensors."""
    stem, _, last = name.rpartition(".")
    if "scale" not in last or ACTIVATIONS.search(name):
        return None
    for weight in (f"{stem}.weight" if stem else "weight", _SCALE.sub("", name)):
        if weight in tensors and weight != name:
            dtype = tensors[weight].info.dtype
            if dtype.kind == "integer" or dtype.name in FLOAT8:
                return f"to {dtype} with scales"
    return None


_ADVICE = (
    "Give the checkpoint from before quantization, or load the model and save it dequantized (in transformers: "
    "model.dequantize(), then model.save_pretrained(FOLDER))."
)


def _scales(checkpoint: Checkpoint, weight: Tensor, name: str) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The scales as a matrix, and the block of the weight that each of them belongs to."""
    scale = checkpoint.tensors[name]
    info, shape = scale.info, weight.info.shape
    if info.dtype.name in _DECODED:
        rows, columns = shape[0] if shape else 1, _columns(weight)
        numbers = scale.read(0, info.count).view(_dtype(_DECODED[info.dtype.name])).astype(np.float32)
        if info.count == 1:
            return numbers.reshape(1, 1), (rows, columns)
        if info.shape in ((rows,), (rows, *(1,) * (len(shape) - 1))):
            return numbers.reshape(rows, 1), (1, columns)
        blocks = (math.ceil(rows / BLOCK), math.ceil(columns / BLOCK))
        if info.shape == blocks and len(shape) == 2:
            return numbers.reshape(blocks), (BLOCK, BLOCK)
    raise CheckpointError(
        f"{checkpoint.path}: the scale {name} ({info.dtype}, shape {list(info.shape)}) fits neither the whole of its "
        f"float8 weight of shape {list(shape)}, nor its rows, nor blocks of {BLOCK} x {BLOCK}. {_ADVICE}"
    )


def _columns(tensor: Tensor) -> int:
    """Elements of a row."""
    shape = tensor.info.shape
    return math.prod(shape[1:]) if shape else 1


def _dtype(name: str) -> np.dtype[Any]:
    """A dtype of NumPy's, or of a library that is imported only where there are quantized weights."""
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))

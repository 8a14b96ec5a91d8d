"""From an unpickled object to the tensors of a checkpoint. Knows no file format.

Which entry is the state dict is decided in entries.py. Here its tensors are placed in the file, or refused by name.
"""

import struct
import zipfile
from collections.abc import Callable, Iterable

import numpy as np

from mergekit_wise.checkpoint.arguments import training_arguments
from mergekit_wise.checkpoint.arrays import PickledArray, pickled_array, why_unreadable
from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.derived import Computed
from mergekit_wise.checkpoint.entries import find_weights
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.modules import Weights
from mergekit_wise.checkpoint.pickle_machine import Damaged, UnsuitableError
from mergekit_wise.checkpoint.pickle_report import SuspiciousNames
from mergekit_wise.checkpoint.tensors import (
    RANK,
    StorageArray,
    StoredTensor,
    Tensor,
    TensorInfo,
    check_name,
    check_shape,
    check_total,
    is_dense,
)
from mergekit_wise.checkpoint.torch_objects import Storage, TensorView
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural, shown

Region = tuple[int, int]
"""Where a storage lies in a file: first byte, and number of bytes."""

ZERO_3 = frozenset(("param_shapes", "ds_config", "ds_version", "zero_stage"))
"""Keys of the files that DeepSpeed writes."""

MAX_PARTS = 8
"""How many items of a list among the weights are looked at."""

DAMAGE = (Damaged, zipfile.BadZipFile, EOFError, struct.error)
"""Errors that show that bytes are missing or wrong."""


def refusal(file: MappedFile, kind: str, error: Exception) -> CheckpointError:
    """The error for a file of this kind that cannot be read: only damage is a reason to copy it again."""
    if isinstance(error, UnsuitableError):
        return error.in_file(file.path)
    advice = " If it was cut off, copy or download it again." if isinstance(error, DAMAGE) else ""
    return CheckpointError(f"{file.path}: not a readable {kind}: {error}.{advice}")


def torch_checkpoint(
    file: MappedFile,
    kind: str,
    value: object,
    locate: Callable[[Storage], Region],
    digest: str,
    suspicious: SuspiciousNames,
    entry: str | None = None,
) -> Checkpoint:
    """The checkpoint in an unpickled `value`, whose storages lie where `locate` says; `entry` names a part of it.

    Raises UnsuitableError if it holds no weights or some that are not read, ValueError if a tensor reaches beyond its
    storage.
    """
    weights, notes = find_weights(value, file.path, entry)
    _require_readable(weights)
    _require_values(value, weights)
    tensors = {name: _place(file, name, tensor, locate) for name, tensor in weights.tensors.items()}
    check_total(*_sizes(weights, tensors.values()), file.size)
    return Checkpoint(
        file.path,
        kind if entry is None else f"{kind}, entry {shown(entry, 200)!r}",
        tensors,
        {**weights.settings, **training_arguments(value)},
        digest,
        (*notes, *suspicious.notes(notes)),
        entry=entry,
    )


def _require_readable(weights: Weights) -> None:
    """Raise UnsuitableError if a tensor among the weights is not read, by its name and with what to do."""
    reasons: dict[str, list[str]] = {}
    foreign = {name: view for name, view in weights.tensors.items() if view.dtype not in RANK}
    for name, value in (*foreign.items(), *weights.others.items()):
        parts = value if isinstance(value, (list, tuple)) else (value,)  # as (weight, bias) of quantized layers
        reason = next((reason for part in parts[:MAX_PARTS] if (reason := why_unreadable(part))), None)
        if reason is None and (isinstance(value, TensorView) or pickled_array(value) is not None):
            reason = "has a name that is not a text"
        if reason is not None:
            reasons.setdefault(reason, []).append(shown(str(name)) if isinstance(name, (str, int, float)) else "?")
    for reason, names in reasons.items():
        which = f"tensor {names[0]!r}" if len(names) == 1 else f"each of {len(names):,} tensors ({listed(names)})"
        raise UnsuitableError(f"{which} {reason}")


def _require_values(value: object, weights: Weights) -> None:
    """Raise UnsuitableError for the placeholders that ZeRO-3 leaves where other files hold the values."""
    empty = [name for name, tensor in weights.tensors.items() if 0 in tensor.shape]
    if empty and isinstance(value, dict) and not ZERO_3.isdisjoint(value):
        raise UnsuitableError(
            f"{plural(len(empty), 'tensor')} ({listed(empty, 3)}) are empty: DeepSpeed's ZeRO-3 keeps the values in "
            "other files of the checkpoint's folder. Gather them into one file with the script zero_to_fp32.py that "
            "DeepSpeed put beside them: python zero_to_fp32.py CHECKPOINT_FOLDER OUTPUT"
        )


def _sizes(weights: Weights, tensors: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes of all tensors, and bytes without repetitions: a layer that is used 24 times has 24 names, one storage."""
    total = 0
    distinct: dict[object, int] = {}
    for (name, view), tensor in zip(weights.tensors.items(), tensors, strict=True):
        total += tensor.info.nbytes
        key = (view.storage.key, view.offset, view.shape, view.strides) if isinstance(view, TensorView) else name
        distinct[key] = tensor.info.nbytes
    return total, sum(distinct.values())


def _place(file: MappedFile, name: str, view: TensorView | PickledArray, locate: Callable[[Storage], Region]) -> Tensor:
    check_name(name)
    if isinstance(view, PickledArray):
        return view.tensor(name, file)
    check_shape(name, view.shape, view.dtype.itemsize)
    start, size = locate(view.storage)
    info = TensorInfo(name, view.dtype, view.shape)
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.strides, strict=True))
    if info.count and (last + 1) * view.dtype.itemsize > size:
        raise ValueError(f"tensor {name!r} reaches beyond its storage")
    # The stride of a dimension of one element is never used, and may be anything.
    strides = tuple(step if size > 1 else 0 for size, step in zip(view.shape, view.strides, strict=True))
    offset = start + view.offset * view.dtype.itemsize
    stored = StoredTensor(info, file, offset, None if is_dense(view.shape, view.strides) else strides)
    return _resolved(stored, view)


def _resolved(stored: StoredTensor, view: TensorView) -> Tensor:
    """The tensor after the conjugation or negation that torch has not carried out in the storage."""
    tensor: Tensor = stored
    if view.conjugate and view.dtype.kind == "complex":
        tensor = Computed(tensor.info, tensor, np.conjugate)
    if view.negative:
        tensor = Computed(tensor.info, tensor, _negated_bits if _is_encoded(view) else np.negative)
    return tensor


def _is_encoded(view: TensorView) -> bool:
    """Whether the storage dtype is an integer that stands for a float of the same width."""
    return view.dtype.kind == "float" and np.dtype(view.dtype.storage).kind == "u"


def _negated_bits(elements: StorageArray) -> StorageArray:
    """Floats whose sign is their first bit, as those of two and of one byte."""
    sign = elements.dtype.type(1 << (8 * elements.dtype.itemsize - 1))
    return np.bitwise_xor(elements, sign)

"""Tensors that a pickle holds in another form than torch's usual one: NumPy arrays, which are read, and others.

The others are recognised, so that they are refused by name where they are weights. Imports neither torch nor what a
pickle names.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from mergekit_wise.checkpoint.derived import InMemory
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.pickle_machine import Blob, Global, Stub
from mergekit_wise.checkpoint.tensors import (
    BY_TORCH,
    DTYPES,
    MAX_DIMENSIONS,
    DType,
    StorageArray,
    TensorInfo,
    check_shape,
)
from mergekit_wise.checkpoint.torch_objects import TensorView
from mergekit_wise.wording import shown

NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")

BY_CODE = {np.dtype(dtype.storage).str[1:]: dtype for dtype in DTYPES if dtype.name[:2] not in ("BF", "F8", "BO")}
BY_CODE["b1"] = BY_TORCH["bool"]
"""Dtypes by NumPy's code without the byte order: "f4"."""

SPARSE = "is sparse; save it with .to_dense()"
META = "is on the meta device and has no values; load the weights before saving them"
DEVICE = "is on a device whose tensors torch saves in a form of its own; save it with .cpu()"
DISTRIBUTED = (
    "is a part of a distributed tensor; save the result of .full_tensor(), or convert a sharded checkpoint with "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
)
QUANTIZED = "is quantized; save it with .dequantize()"
NESTED = "is a nested tensor; save its parts (.unbind()) under names of their own"
SUBCLASS = "is a tensor of the class {}, which keeps its values elsewhere; save it as an ordinary tensor"

CONSTRUCTORS = {
    "_rebuild_sparse_tensor": SPARSE,
    "_rebuild_sparse_csr_tensor": SPARSE,
    "_rebuild_meta_tensor_no_storage": META,
    "_rebuild_xla_tensor": DEVICE,
    "_rebuild_device_tensor_from_cpu_tensor": DEVICE,
    "_rebuild_device_tensor_from_numpy": DEVICE,
    "_rebuild_qtensor": QUANTIZED,
    "_rebuild_nested_tensor": NESTED,
    "_rebuild_wrapper_subclass": SUBCLASS,
}
"""Functions of torch._utils that make tensors which are not read, and what to do about each."""


@dataclass(frozen=True, slots=True)
class ArrayInFile(InMemory):
    """A tensor in memory whose elements were decoded from a pickle in `file`."""

    file: MappedFile

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """The file with the pickle."""
        return (self.file,)


@dataclass(frozen=True, slots=True)
class PickledArray:
    """A NumPy array in a pickle: `data` holds its bytes, in Fortran's order if `fortran`."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes | memoryview | str
    fortran: bool = False

    def tensor(self, name: str, file: MappedFile) -> ArrayInFile:
        """The array as a tensor. Raises ValueError if its bytes are not as many as its shape needs."""
        check_shape(name, self.shape, self.dtype.itemsize)
        data = self.data.encode("latin-1") if isinstance(self.data, str) else self.data
        if len(data) != math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError(f"array {shown(name)!r} has {len(data):,} bytes, which do not fit its shape")
        elements: StorageArray = np.frombuffer(data, self.dtype.storage)
        if self.fortran:
            elements = elements.reshape(self.shape, order="F").ravel()
        return ArrayInFile(TensorInfo(name, self.dtype, self.shape), elements, file)


def pickled_array(value: object) -> PickledArray | None:
    """The array that a stub stands for, from NumPy or a device that torch saves through NumPy; None for others."""
    match value:
        case Stub(
            kind=Global("torch._utils", "_rebuild_xla_tensor" | "_rebuild_device_tensor_from_numpy"),
            arguments=(inner, Global("torch", name), *_),
        ):
            array = _numpy_array(inner)
            return _as_dtype(array, name) if array is not None else None
    return _numpy_array(value)


def _numpy_array(value: object) -> PickledArray | None:
    match value:
        case Stub(kind=Global(module, "_reconstruct"), state=(_, tuple(shape), Stub() as kind, bool(fortran), raw)) if (
            module in NUMPY
        ):
            pass
        case Stub(kind=Global(module, "_frombuffer"), arguments=(raw, Stub() as kind, tuple(shape), order)) if (
            module in NUMPY and order in ("C", "F")
        ):
            fortran = order == "F"
        case _:
            return None
    dtype, data = _dtype(kind), _bytes(raw)
    if dtype is None or data is None or len(shape) > MAX_DIMENSIONS:
        return None
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        return None
    return PickledArray(dtype, shape, data, fortran)


def why_unreadable(value: object) -> str | None:
    """What is wrong with a tensor that is not read, and what to do; None if the value stands for no tensor."""
    if isinstance(value, TensorView):
        if value.is_readable:
            return None
        name = value.dtype.torch
        if name == "complex128":
            return "is complex128, which safetensors files cannot hold; save it with .to(torch.complex64)"
        return f"has the dtype {name}, which is not read; save it as float32"
    if not isinstance(value, Stub) or not isinstance(value.kind, Global) or pickled_array(value) is not None:
        return None
    kind = value.kind
    if kind.module == "torch._utils" and kind.name in CONSTRUCTORS:
        reason = CONSTRUCTORS[kind.name]
        return reason if reason != SUBCLASS else _why_subclass(value.arguments[0] if value.arguments else None)
    if kind.module in NUMPY and kind.name in ("_reconstruct", "_frombuffer"):
        return "is a NumPy array of a dtype or byte order that is not read; save it with torch.from_numpy"
    if kind.name in ("ShardedTensor", "DTensor"):
        return DISTRIBUTED
    return None


def _why_subclass(kind: object) -> str:
    if isinstance(kind, Global) and kind.name in ("DTensor", "ShardedTensor"):
        return DISTRIBUTED
    if isinstance(kind, Global) and kind.module.startswith("torchao."):
        return QUANTIZED
    return SUBCLASS.format(kind if isinstance(kind, Global) else "an unknown name")


def _as_dtype(array: PickledArray, name: str) -> PickledArray | None:
    """The array in the dtype that the tensor had on its device, if that is exact: bfloat16 is saved as float32."""
    if array.dtype.torch == name:
        return array
    if name != "bfloat16" or array.dtype.torch != "float32":
        return None
    data = array.data.encode("latin-1") if isinstance(array.data, str) else array.data
    halves = np.frombuffer(data, "<u2") if len(data) % 4 == 0 else np.ones(2, "<u2")
    if halves[::2].any():  # more digits than bfloat16 has
        return None
    return replace(array, dtype=BY_TORCH["bfloat16"], data=halves[1::2].tobytes())


def _dtype(kind: Stub) -> DType | None:
    match kind:
        case Stub(kind=Global("numpy", "dtype"), arguments=(str(code), *_), state=(_, "<" | "|", *_)):
            return BY_CODE.get(code)
    return None


def _bytes(raw: object) -> bytes | memoryview | str | None:
    match raw:
        case bytes():
            return raw
        case Blob():
            return raw.view
        case Stub(kind=Global("_codecs", "encode"), arguments=(str(text), "latin1")):
            return text  # as protocol 2 keeps bytes
        case Stub(kind=Global("builtins" | "__builtin__", "bytes"), arguments=()):
            return b""
    return None

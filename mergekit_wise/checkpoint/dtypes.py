"""The element types that checkpoints hold, and the names that safetensors and torch give them.

Knows no arithmetic: what may be mixed, and how, is decided in ``merging``.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "complex", "integer", "bool"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    ``storage`` is the NumPy dtype, little-endian, whose bits stand for an element: the type itself where NumPy has
    it, else an unsigned integer of the same width (bfloat16 and the 8-bit floats).
    """

    name: str
    torch: str
    kind: Kind
    itemsize: int
    storage: str

    def __str__(self) -> str:
        return self.torch


# In the order of safetensors' own enumeration, which is the order of tensors in a file: see layout.py.
DTYPES = (
    DType("BOOL", "bool", "bool", 1, "u1"),
    DType("U8", "uint8", "integer", 1, "u1"),
    DType("I8", "int8", "integer", 1, "i1"),
    DType("F8_E5M2", "float8_e5m2", "float", 1, "u1"),
    DType("F8_E4M3", "float8_e4m3fn", "float", 1, "u1"),
    DType("F8_E8M0", "float8_e8m0fnu", "float", 1, "u1"),
    DType("F8_E4M3FNUZ", "float8_e4m3fnuz", "float", 1, "u1"),
    DType("F8_E5M2FNUZ", "float8_e5m2fnuz", "float", 1, "u1"),
    DType("I16", "int16", "integer", 2, "<i2"),
    DType("U16", "uint16", "integer", 2, "<u2"),
    DType("F16", "float16", "float", 2, "<f2"),
    DType("BF16", "bfloat16", "float", 2, "<u2"),
    DType("I32", "int32", "integer", 4, "<i4"),
    DType("U32", "uint32", "integer", 4, "<u4"),
    DType("F32", "float32", "float", 4, "<f4"),
    DType("C64", "complex64", "complex", 8, "<c8"),
    DType("F64", "float64", "float", 8, "<f8"),
    DType("I64", "int64", "integer", 8, "<i8"),
    DType("U64", "uint64", "integer", 8, "<u8"),
)

BY_NAME = {dtype.name: dtype for dtype in DTYPES}
BY_TORCH = {dtype.torch: dtype for dtype in DTYPES}
RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}

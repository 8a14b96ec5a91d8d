"""Which element types can be mixed, and what the mixture's is. Knows names of dtypes, no numbers."""

from mergekit_wise.checkpoint import BY_NAME, DType

MIXABLE = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "C64")


def mixed_dtype(a: DType, b: DType) -> DType | None:
    """The dtype of a mixture of `a` and `b`: torch's promotion of the two; None where they cannot be mixed.

    float16 with bfloat16 gives float32. torch promotes no 8-bit float with any other; neither does this. Complex
    mixes with complex alone: beside a real tensor it is a sign of two different models.
    """
    if a.name not in MIXABLE or b.name not in MIXABLE:
        return None
    if a == b:
        return a
    if a.itemsize == 1 or b.itemsize == 1 or "complex" in (a.kind, b.kind):
        return None
    if "F64" in (a.name, b.name):
        return BY_NAME["F64"]
    return BY_NAME["F32"]

"""Reads safetensors files with the format's own library and compares what it finds with what this tool reads."""

from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.safetensors import looks_like_safetensors

IN_NUMPY = frozenset({"BOOL", "U8", "I8", "I16", "U16", "F16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"})
"""Dtypes that the library gives as NumPy arrays; it gives all others as torch tensors only."""


def read_by_library(checkpoint: Checkpoint) -> str | None:
    """The first difference in names, dtypes, shapes or bytes; None if there is none. Other formats are passed over."""
    from safetensors import SafetensorError, safe_open

    for file in checkpoint.files:
        if not looks_like_safetensors(file):
            continue
        names = [name for name, tensor in checkpoint.tensors.items() if file in tensor.files]
        in_numpy = all(checkpoint.info(name).dtype.name in IN_NUMPY for name in names)
        try:
            with safe_open(file.path, "numpy" if in_numpy else "pt") as library:
                if found := _difference(checkpoint, names, library, in_numpy):
                    return found
        except SafetensorError as error:
            return f"the safetensors library cannot read {file.path.name}: {error}"
    return None


def _difference(checkpoint: Checkpoint, names: list[str], library: Any, in_numpy: bool) -> str | None:
    for name in sorted(set(names) ^ set(library.keys())):
        return f"the safetensors library and this tool do not both find {name}"
    for name in names:
        info = checkpoint.info(name)
        facts = library.get_slice(name)
        if (facts.get_dtype(), tuple(facts.get_shape())) != (info.dtype.name, info.shape):
            return f"the safetensors library finds {name} with another dtype or shape than this tool"
        theirs = library.get_tensor(name)
        if (theirs.tobytes() if in_numpy else _bytes_of(theirs)) != checkpoint.read(name).tobytes():
            return f"the safetensors library reads other bytes of {name} than this tool"
    return None


def _bytes_of(tensor: Any) -> bytes:
    from mergekit_wise.merging.torch_backend import as_stored

    return as_stored("", tensor)[1].tobytes()

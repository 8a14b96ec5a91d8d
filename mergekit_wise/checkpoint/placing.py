"""From tensors as torch describes them to where their bytes lie in a file. Knows no file format."""

from collections.abc import Callable

from mergekit_wise.checkpoint.checks import check_name, check_shape, check_total
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.state_dict import StateDict
from mergekit_wise.checkpoint.tensors import StoredTensor, TensorInfo, lies_densely
from mergekit_wise.checkpoint.torch_objects import Storage, TensorView

Region = tuple[int, int]
"""Where a storage lies in a file: first byte, and number of bytes."""

Locate = Callable[[Storage], Region]


def place_all(file: MappedFile, state: StateDict, locate: Locate) -> dict[str, StoredTensor]:
    """Every tensor of a state dict, checked against the size of its storage. Raises ValueError."""
    placed = {name: _place(file, name, view, locate) for name, view in state.tensors.items()}
    check_total(sum(stored.info.nbytes for stored in placed.values()), file.size)
    return placed


def _place(file: MappedFile, name: str, view: TensorView, locate: Locate) -> StoredTensor:
    check_name(name)
    check_shape(name, view.shape, view.dtype.itemsize)
    start, size = locate(view.storage)
    info = TensorInfo(name, view.dtype, view.shape)
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.strides, strict=True))
    if info.count and (last + 1) * view.dtype.itemsize > size:
        raise ValueError(f"tensor {name!r} reaches beyond its storage")
    dense = lies_densely(view.shape, view.strides)
    # The stride of a dimension of one element is never walked, and may be anything.
    strides = tuple(step if size > 1 else 0 for size, step in zip(view.shape, view.strides, strict=True))
    offset = start + view.offset * view.dtype.itemsize
    return StoredTensor(info, file, offset, None if dense else strides)

"""Descriptions of what torch pickles: storages, and tensors that view them. Does not import torch.

`reduce` holds the closed list of calls that mean something in a checkpoint. Every other call becomes a stub.
"""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, replace

from mergekit_wise.checkpoint.pickle_machine import Global, PickleError, Stub, hashable
from mergekit_wise.checkpoint.pickle_report import with_call
from mergekit_wise.checkpoint.tensors import BY_TORCH, MAX_DIMENSIONS, RANK, DType
from mergekit_wise.wording import shown

STORAGE_DTYPES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
}

FOREIGN_DTYPES = {
    "ComplexDoubleStorage": DType("", "complex128", "complex", 16, "<c16"),
    "QInt8Storage": DType("", "qint8", "integer", 1, "i1"),
    "QUInt8Storage": DType("", "quint8", "integer", 1, "u1"),
    "QInt32Storage": DType("", "qint32", "integer", 4, "<i4"),
    "QUInt4x2Storage": DType("", "quint4x2", "integer", 1, "u1"),
    "QUInt2x4Storage": DType("", "quint2x4", "integer", 1, "u1"),
}
"""Of storages that no tensor is read from; they may lie beside the weights."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of `count` elements that a file holds under `key`."""

    key: str
    dtype: DType
    count: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as torch describes it: `offset` and `strides` in elements of `dtype` within its storage.

    The values of a lazy view are those in the storage after conjugation (`conjugate`) or negation (`negative`).
    """

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether the dtype is one that checkpoints hold."""
        return self.dtype in RANK


def storage_of(saved_id: object) -> Storage:
    """The storage that a persistent id of ``torch.save`` stands for. Raises PickleError."""
    match saved_id:
        case ("storage", Global(module="torch" | "torch.storage", name=kind), str(key), _, int(count), *_):
            pass
        case _:
            raise PickleError(f"the pickle refers to outside data that is not a torch storage{with_call(saved_id)}")
    if not 0 <= count < 2**63:
        raise PickleError("a storage has an impossible size")
    if kind in FOREIGN_DTYPES:
        return Storage(key, FOREIGN_DTYPES[kind], count)
    if kind not in STORAGE_DTYPES:
        raise PickleError(f"storages of the type {shown(kind)} are unknown")
    return Storage(key, BY_TORCH[STORAGE_DTYPES[kind]], count)


def reduce(function: Global, arguments: tuple[object, ...]) -> object:
    """The value of a call in a pickle: from the closed list `KNOWN`, else a stub."""
    known = KNOWN.get((function.module, function.name))
    return known(arguments) if known else Stub(function, arguments)


def _tensor(arguments: tuple[object, ...]) -> TensorView:
    """``_rebuild_tensor(storage, offset, size, stride)``, and ``_rebuild_tensor_v2`` with more arguments."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *more):
            metadata = more[2] if len(more) > 2 else None  # after requires_grad and the hooks
            return _checked(TensorView(storage, storage.dtype, offset, shape, strides), metadata)
    raise PickleError(f"a tensor is described in an unknown way{with_call(arguments)}")


def _tensor_v3(arguments: tuple[object, ...]) -> TensorView:
    """``_rebuild_tensor_v3``: newer dtypes, named as an argument after an untyped storage."""
    match arguments:
        case (
            Storage() as storage,
            int(offset),
            tuple(shape),
            tuple(strides),
            _,
            _,
            Global("torch", name),
            *more,
        ):
            dtype = BY_TORCH.get(name, DType("", shown(name), "integer", 1, "u1"))
            return _checked(TensorView(storage, dtype, offset, shape, strides), more[0] if more else None)
    raise PickleError(f"a tensor is described in an unknown way{with_call(arguments)}")


def _checked(view: TensorView, metadata: object) -> TensorView:
    """The view, with the marks that torch's metadata sets for lazy conjugation and negation. Raises PickleError."""
    if len(view.shape) != len(view.strides) or len(view.shape) > MAX_DIMENSIONS:
        raise PickleError(f"a tensor has {len(view.shape):,} dimensions and {len(view.strides):,} strides")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (view.offset, *view.shape, *view.strides)):
        raise PickleError("a tensor has an impossible shape or stride")
    if not metadata:
        return view
    if not isinstance(metadata, dict) or not metadata.keys() <= {"conj", "neg"}:
        raise PickleError("a tensor has metadata other than torch's marks of conjugate and negative views")
    return replace(view, conjugate=metadata.get("conj") is True, negative=metadata.get("neg") is True)


def _moved(arguments: tuple[object, ...]) -> object:
    """``_rebuild_device_tensor_from_cpu_tensor(tensor, dtype, device, requires_grad)``: the tensor."""
    match arguments:
        case (TensorView() as view, Global("torch", name), *_) if view.dtype.torch == name:
            return view
    return Stub(Global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"), arguments)


def _first(arguments: tuple[object, ...]) -> object:
    """``_rebuild_parameter(tensor, requires_grad, hooks)``: the tensor."""
    if not arguments:
        raise PickleError("a parameter holds no tensor")
    return arguments[0]


def _subclass(arguments: tuple[object, ...]) -> object:
    """``_rebuild_from_type_v2(function, type, arguments, state)``: the value of the function."""
    match arguments:
        case (Global() as function, _, tuple(inner), *_):
            return reduce(function, inner)
    raise PickleError(f"a tensor subclass is described in an unknown way{with_call(arguments)}")


def _ordered_dict(arguments: tuple[object, ...]) -> dict[object, object]:
    match arguments:
        case ():
            return {}
        case (list(pairs),) if all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            entries = {hashable(pair[0]): pair[1] for pair in pairs}
            _require_each_once(entries, pairs)
            return entries
    raise PickleError(f"an ordered dictionary is described in an unknown way{with_call(arguments)}")


def _set(arguments: tuple[object, ...]) -> frozenset[object]:
    match arguments:
        case ():
            return frozenset()
        case (list(items),):
            members = frozenset(map(hashable, items))
            _require_each_once(members, items)
            return members
    raise PickleError(f"a set is described in an unknown way{with_call(arguments)}")


def _require_each_once(built: Sized, items: list[object]) -> None:
    """Raise PickleError if one of `items` occurs twice, so that what was built is as large as the list it came from."""
    if len(built) != len(items):
        raise PickleError("a name occurs twice in a dictionary or set")


KNOWN: Mapping[tuple[str, str], Callable[[tuple[object, ...]], object]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _moved,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("__builtin__", "frozenset"): _set,
}

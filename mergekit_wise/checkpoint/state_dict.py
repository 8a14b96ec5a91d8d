"""From an unpickled object to the tensors of a checkpoint. Knows no file format.

Files wrap their weights: a training checkpoint nests them next to the epoch and the optimizer, a pickled module keeps
them in its submodules. Notes tell the user what was unwrapped and what was left out.
"""

import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping

from mergekit_wise.checkpoint.arguments import training_arguments
from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.pickle_machine import Damaged, Global, PickleError, Stub
from mergekit_wise.checkpoint.pickle_report import SEARCHED, SuspiciousNames, call_in, described, name_of
from mergekit_wise.checkpoint.tensors import StoredTensor, TensorInfo, check_name, check_shape, check_total, is_dense
from mergekit_wise.checkpoint.torch_objects import Storage, TensorView
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural, shown

NESTS = ("state_dict", "model_state_dict", "model", "module", "ema", "state_dict_ema", "model_ema")
"""Keys under which training scripts save the weights; the first that is present is used."""

SETTINGS = ("normalize",)
"""Attributes of layers that change what they compute but are no tensors: the WiSE-FT authors' head has this one."""

MAX_DEPTH = 100

MAX_ENTRIES = 500_000
"""Several times what the largest models have: parameters, buffers and modules together."""

Region = tuple[int, int]
"""Where a storage lies in a file: first byte, and number of bytes."""


class NotAStateDict(PickleError):
    """The file is complete, but holds something else than weights under names."""


def refusal(file: MappedFile, kind: str, error: Exception) -> CheckpointError:
    """The error for a file of this kind that cannot be read: only damage is a reason to copy it again."""
    if isinstance(error, NotAStateDict):
        return CheckpointError(f"{file.path}: {error}.")
    advice = " If it was cut off, copy or download it again." if isinstance(error, DAMAGE) else ""
    return CheckpointError(f"{file.path}: not a readable {kind}: {error}.{advice}")


DAMAGE = (Damaged, zipfile.BadZipFile, EOFError, struct.error)


Weights = tuple[Mapping[str, TensorView], Mapping[str, object], dict[str, str]]
"""Tensors by name, the entries that are no tensors, and settings of layers as metadata."""


def torch_checkpoint(
    file: MappedFile,
    kind: str,
    value: object,
    locate: Callable[[Storage], Region],
    digest: str,
    suspicious: SuspiciousNames,
) -> Checkpoint:
    """The checkpoint in an unpickled `value`, whose storages lie where `locate` says.

    Raises ValueError if it holds no weights, or if a tensor reaches beyond its storage.
    """
    weights, notes = _unwrap(value)
    views, others, settings = weights
    if not views:
        raise NotAStateDict(f"it holds no tensors under names ({_summary(others.items()) or 'it is empty'})")
    if others:
        notes.append(f"ignored entries that are no tensors: {_summary(others.items())}")
    tensors = {name: _place(file, name, view, locate) for name, view in views.items()}
    check_total(sum(stored.info.nbytes for stored in tensors.values()), file.size)
    metadata = settings | training_arguments(value)
    return Checkpoint(file.path, kind, tensors, metadata, digest, (*notes, *suspicious.notes(notes)))


def _unwrap(value: object) -> tuple[Weights, list[str]]:
    """Descend through dictionaries and a module to the weights; the notes say which way was taken."""
    notes: list[str] = []
    for _ in range(MAX_DEPTH):
        value = _compiled(value)
        if isinstance(value, Stub) and _is_module(value):
            return _module_weights(value), [*notes, f"read the weights from a pickled module ({name_of(value)})"]
        if not isinstance(value, dict):
            raise NotAStateDict(_other_content(value))
        tensors = {key: entry for key, entry in value.items() if isinstance(entry, TensorView)}
        if tensors:
            named = {key: entry for key, entry in tensors.items() if isinstance(key, str)}
            return (named, {key: entry for key, entry in value.items() if key not in named}, {}), notes
        nest = next((key for key in NESTS if isinstance(value.get(key), (dict, Stub)) and value[key]), None)
        if nest is None:
            raise NotAStateDict(f"it holds a dictionary without tensors ({_summary(value.items()) or 'empty'})")
        others = _summary((key, entry) for key, entry in value.items() if key != nest)
        notes.append(f"using {nest!r}" + (f"; ignoring {others}" if others else ""))
        value = value[nest]
    raise NotAStateDict("its dictionaries are nested too deeply")


def _other_content(value: object) -> str:
    """What a file holds that is no dictionary, and how to make it one."""
    if isinstance(value, TensorView):
        return (
            f"it holds a single tensor of shape {list(value.shape)}, not a state dict. Save it under a name: "
            "torch.save({'NAME': tensor}, FILE)"
        )
    if isinstance(value, (list, tuple)):
        inside = [number for number, entry in enumerate(value) if isinstance(entry, (dict, Stub))]
        advice = f". Save the entry with the weights alone: torch.save(loaded[{inside[0]}], FILE)" if inside else ""
        return f"it holds a {described(value)} of {plural(len(value), 'entry')}, not a state dict{advice}"
    return f"it holds a {described(value)}, not a state dict"


def _summary(entries: Iterable[tuple[object, object]]) -> str:
    """The first keys; those whose entries hold a call or class come first, with its name."""
    labels: list[str] = []
    calls: list[str] = []
    budget = iter(range(SEARCHED))
    for key, entry in entries:
        name = shown(str(key)) if isinstance(key, (str, int, float)) else name_of(key)
        call = call_in(entry, budget)
        if call is None:
            labels.append(name)
        else:
            calls.append(f"{name} ({name_of(call)})")
    return listed(calls + labels)


def _place(file: MappedFile, name: str, view: TensorView, locate: Callable[[Storage], Region]) -> StoredTensor:
    check_name(name)
    check_shape(name, view.shape, view.dtype.itemsize)
    start, size = locate(view.storage)
    info = TensorInfo(name, view.dtype, view.shape)
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.strides, strict=True))
    if info.count and (last + 1) * view.dtype.itemsize > size:
        raise ValueError(f"tensor {name!r} reaches beyond its storage")
    # The stride of a dimension of one element is never used, and may be anything.
    strides = tuple(step if size > 1 else 0 for size, step in zip(view.shape, view.strides, strict=True))
    offset = start + view.offset * view.dtype.itemsize
    return StoredTensor(info, file, offset, None if is_dense(view.shape, view.strides) else strides)


# Pickled modules, whose classes are never imported. Torch keeps a module's tensors in `_parameters` and `_buffers` and
# its submodules in `_modules`; a TorchScript archive keeps all of them as plain attributes. A submodule can occur in
# many places, so a short pickle can describe a tree without end.


def _is_module(value: Stub) -> bool:
    """Whether a stub stands for a module of torch or TorchScript."""
    return isinstance(value.state, dict) and ("_parameters" in value.state or _is_script(value))


def _compiled(value: object) -> object:
    """The module inside one that torch.compile made, which pickles as a call with it; any other value as it is."""
    while isinstance(value, Stub) and isinstance(value.kind, Global) and value.kind.name == "OptimizedModule":
        if not value.arguments:
            break
        value = value.arguments[0]
    return value


def _is_script(value: Stub) -> bool:
    return isinstance(value.kind, Global) and value.kind.module.startswith("__torch__")


def _module_weights(module: Stub) -> Weights:
    """Tensors in the order of torch's own ``state_dict()``. Settings have names like tensors, and JSON's booleans.

    Raises ValueError if the modules are nested too deeply, are too many, or give one name to two tensors.
    """
    tensors: dict[str, TensorView] = {}
    others: dict[str, object] = {}
    settings: dict[str, str] = {}
    seen = 0

    def entries(value: object) -> Iterator[tuple[str, object]]:
        """The entries of a dictionary with text keys. Every entry is counted, wherever it occurs."""
        nonlocal seen
        for key, entry in value.items() if isinstance(value, dict) else ():
            seen += 1
            if seen > MAX_ENTRIES:
                raise ValueError(f"its modules hold more than {MAX_ENTRIES:,} entries")
            if isinstance(key, str):
                yield key, entry

    def members(module: Stub, state: dict[object, object]) -> Iterator[tuple[str, object]]:
        """Parameters and buffers, then submodules; never None, and none of a script's plain attributes."""
        if _is_script(module):
            attributes = list(entries(state))
            yield from ((name, entry) for name, entry in attributes if isinstance(entry, TensorView))
            yield from ((name, entry) for name, entry in attributes if isinstance(entry, (Stub, Global)))
            return
        transient = state.get("_non_persistent_buffers_set")
        if not isinstance(transient, (set, frozenset)):
            transient = frozenset()
        for place in ("_parameters", "_buffers", "_modules"):
            for name, entry in entries(state.get(place)):
                if entry is not None and not (place == "_buffers" and name in transient):
                    yield name, entry

    def visit(module: Stub, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError("its modules are nested too deeply")
        assert isinstance(module.state, dict)
        for setting in SETTINGS:
            if isinstance(value := module.state.get(setting), bool):
                settings[prefix + setting] = str(value).lower()
        for name, entry in members(module, module.state):
            check_name(prefix + name)
            entry = _compiled(entry)
            if isinstance(entry, TensorView):
                if prefix + name in tensors:
                    raise ValueError(f"two of its tensors have the name {prefix + name!r}")
                tensors[prefix + name] = entry
            elif isinstance(entry, Stub) and _is_module(entry):
                visit(entry, f"{prefix}{name}.", depth + 1)
            else:
                others[prefix + name] = entry

    visit(module, "", 0)
    return tensors, others, settings

"""From what a torch file holds to a flat map of names to tensors. Knows no file.

Files wrap their weights: a training checkpoint nests them beside the epoch and the optimizer, a pickled module keeps
them in `_parameters` and `_modules`. What was walked through and what was left out is told.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint.pickle_machine import Global, Stub
from mergekit_wise.checkpoint.torch_objects import TensorView

NESTS = ("state_dict", "model_state_dict", "model", "module", "ema", "state_dict_ema", "model_ema")
"""Where training scripts put the weights; the first that is there is taken."""

MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name, and notes for the user on how they were found."""

    tensors: Mapping[str, TensorView]
    notes: tuple[str, ...]


def find_state_dict(value: object) -> StateDict:
    """The weights inside an unpickled object. Raises ValueError if there are none."""
    notes: list[str] = []
    for _ in range(MAX_DEPTH):
        if isinstance(value, Stub) and _is_module(value):
            notes.append(f"read the weights out of a pickled module ({value.kind})")
            return StateDict(dict(_module_tensors(value, "", 0)), tuple(notes))
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {_name_of(value)}, not a state dict")
        if any(isinstance(entry, TensorView) for entry in value.values()):
            return _flat(value, notes)
        nest = next((key for key in NESTS if isinstance(value.get(key), (dict, Stub)) and value[key]), None)
        if nest is None:
            raise ValueError(f"it holds a dictionary without tensors ({_keys(value)})")
        others = [str(key) for key in value if key != nest]
        beside = f" (beside it, and not read: {', '.join(others[:8])})" if others else ""
        notes.append(f"took {nest!r} out of the file's dictionary{beside}")
        value = value[nest]
    raise ValueError("its dictionaries are nested too deeply")


def _flat(entries: dict[object, object], notes: list[str]) -> StateDict:
    tensors = {key: entry for key, entry in entries.items() if isinstance(key, str) and isinstance(entry, TensorView)}
    left = [str(key) for key in entries if key not in tensors]
    if left:
        notes.append(f"left out what is no tensor: {', '.join(left[:8])}")
    return StateDict(tensors, tuple(notes))


def _is_module(value: Stub) -> bool:
    if not isinstance(value.state, dict):
        return False
    return "_parameters" in value.state or _is_script(value)


def _is_script(value: Stub) -> bool:
    """TorchScript names its classes so, and keeps tensors and submodules as plain attributes."""
    return isinstance(value.kind, Global) and value.kind.module.startswith("__torch__")


def _module_tensors(module: Stub, prefix: str, depth: int) -> Iterator[tuple[str, TensorView]]:
    """Parameters, buffers and submodules, in the order of torch's own ``state_dict()``."""
    if depth > MAX_DEPTH:
        raise ValueError("its modules are nested too deeply")
    state = module.state
    if not isinstance(state, dict):
        return
    if _is_script(module):
        state = {"_buffers": state, "_modules": state}
    transient = state.get("_non_persistent_buffers_set")
    if not isinstance(transient, (set, frozenset)):
        transient = frozenset()
    for place in ("_parameters", "_buffers"):
        for name, entry in _entries(state.get(place)):
            if isinstance(entry, TensorView) and name not in transient:
                yield prefix + name, entry
    for name, entry in _entries(state.get("_modules")):
        if isinstance(entry, Stub):
            yield from _module_tensors(entry, f"{prefix}{name}.", depth + 1)


def _entries(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((key, entry) for key, entry in value.items() if isinstance(key, str))


def _name_of(value: object) -> str:
    return str(value.kind) if isinstance(value, Stub) else type(value).__name__


def _keys(value: dict[object, object]) -> str:
    return "its keys: " + ", ".join(str(key)[:40] for key in list(value)[:8]) if value else "empty"

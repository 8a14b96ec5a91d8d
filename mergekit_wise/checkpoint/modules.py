"""The tensors of pickled modules, whose classes are never imported. Knows no file format.

Torch keeps a module's tensors in `_parameters` and `_buffers` and its submodules in `_modules`; a TorchScript archive
keeps all of them as plain attributes. A submodule can occur in many places, so a short pickle can describe a tree
without end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mergekit_wise.checkpoint.arrays import PickledArray
from mergekit_wise.checkpoint.pickle_machine import Global, Stub
from mergekit_wise.checkpoint.tensors import check_name
from mergekit_wise.checkpoint.torch_objects import TensorView

SETTINGS = ("normalize",)
"""Attributes of layers that change what they compute but are no tensors: the WiSE-FT authors' head has this one."""

MAX_DEPTH = 100

MAX_ENTRIES = 500_000
"""Several times what the largest models have: parameters, buffers and modules together."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, the entries that are no tensors or none that is read, and settings of layers as metadata."""

    tensors: Mapping[str, TensorView | PickledArray]
    others: Mapping[object, object] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Budget:
    """How many entries of modules may still be visited in a file."""

    left: int = MAX_ENTRIES

    def spend(self) -> None:
        """Count an entry. Raises ValueError if there are too many."""
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"its modules hold more than {MAX_ENTRIES:,} entries")


def inner_module(value: object) -> object:
    """The module inside one that torch.compile made, which pickles as a call with it; any other value as it is."""
    while isinstance(value, Stub) and isinstance(value.kind, Global) and value.kind.name == "OptimizedModule":
        if not value.arguments:
            break
        value = value.arguments[0]
    return value


def is_module(value: Stub) -> bool:
    """Whether a stub stands for a module of torch or TorchScript."""
    return isinstance(value.state, dict) and ("_parameters" in value.state or _is_script(value))


def _is_script(value: Stub) -> bool:
    return isinstance(value.kind, Global) and value.kind.module.startswith("__torch__")


def module_weights(module: Stub, budget: Budget) -> Weights:
    """Tensors in the order of torch's own ``state_dict()``. Settings have names like tensors, and JSON's booleans.

    Raises ValueError if the modules are nested too deeply, are too many, or give one name to two tensors.
    """
    tensors: dict[str, TensorView] = {}
    others: dict[object, object] = {}
    settings: dict[str, str] = {}

    def entries(value: object) -> Iterator[tuple[str, object]]:
        """The entries of a dictionary with text keys. Every entry is counted, wherever it occurs."""
        for key, entry in value.items() if isinstance(value, dict) else ():
            budget.spend()
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
            entry = inner_module(entry)
            if isinstance(entry, TensorView):
                if prefix + name in tensors:
                    raise ValueError(f"two of its tensors have the name {prefix + name!r}")
                tensors[prefix + name] = entry
            elif isinstance(entry, Stub) and is_module(entry):
                visit(entry, f"{prefix}{name}.", depth + 1)
            else:
                others[prefix + name] = entry

    visit(module, "", 0)
    return Weights(tensors, others, settings)

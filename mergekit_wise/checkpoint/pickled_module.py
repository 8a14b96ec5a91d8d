"""The weights inside a pickled module, whose class is not imported. Knows no file.

Torch keeps a module's tensors in `_parameters` and `_buffers` and its parts in `_modules`; a TorchScript archive keeps
all of them as plain attributes. A part can stand in many places, so a short pickle can describe a tree that has no end.
"""

from collections.abc import Iterator

from mergekit_wise.checkpoint.checks import check_name
from mergekit_wise.checkpoint.pickle_machine import Global, Stub
from mergekit_wise.checkpoint.torch_objects import TensorView

SETTINGS = ("normalize",)
"""Attributes that no tensor shows and that change what a layer computes: the WiSE-FT authors' head has this one."""

MAX_DEPTH = 100

MAX_ENTRIES = 500_000
"""Several times what the largest models have: parameters, buffers and modules together."""


def is_module(value: object) -> bool:
    """Whether a stub stands for a module of torch or TorchScript."""
    if not isinstance(value, Stub) or not isinstance(value.state, dict):
        return False
    return "_parameters" in value.state or _is_script(value)


def module_tensors(module: Stub) -> tuple[dict[str, TensorView], dict[str, object], dict[str, str]]:
    """Tensors by name, in the order of torch's own ``state_dict()``; what stands where one should; settings of layers.

    A setting is ``true`` or ``false``, under a name like that of a tensor.

    Raises ValueError if the modules are nested too deeply, are too many, or give one name to two tensors.
    """
    walk = _Walk()
    walk.visit(module, "", 0)
    return walk.tensors, walk.others, walk.settings


def _is_script(value: Stub) -> bool:
    """TorchScript names its classes so."""
    return isinstance(value.kind, Global) and value.kind.module.startswith("__torch__")


class _Walk:
    def __init__(self) -> None:
        self.tensors: dict[str, TensorView] = {}
        self.others: dict[str, object] = {}
        self.settings: dict[str, str] = {}
        self.seen = 0

    def visit(self, module: Stub, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError("its modules are nested too deeply")
        assert isinstance(module.state, dict)
        for setting in SETTINGS:
            if isinstance(value := module.state.get(setting), bool):
                self.settings[prefix + setting] = str(value).lower()
        for name, entry in self._contents(module):
            check_name(prefix + name)
            if isinstance(entry, TensorView):
                if prefix + name in self.tensors:
                    raise ValueError(f"two of its tensors are called {prefix + name!r}")
                self.tensors[prefix + name] = entry
            elif isinstance(entry, Stub) and is_module(entry):
                self.visit(entry, f"{prefix}{name}.", depth + 1)
            else:
                self.others[prefix + name] = entry

    def _contents(self, module: Stub) -> Iterator[tuple[str, object]]:
        """Parameters and buffers, then submodules; of None, and of a script's plain attributes, nothing."""
        state = module.state
        assert isinstance(state, dict)
        if _is_script(module):
            entries = list(self._entries(state))
            yield from ((name, entry) for name, entry in entries if isinstance(entry, TensorView))
            yield from ((name, entry) for name, entry in entries if isinstance(entry, (Stub, Global)))
            return
        transient = state.get("_non_persistent_buffers_set")
        if not isinstance(transient, (set, frozenset)):
            transient = frozenset()
        for place in ("_parameters", "_buffers", "_modules"):
            for name, entry in self._entries(state.get(place)):
                if entry is not None and not (place == "_buffers" and name in transient):
                    yield name, entry

    def _entries(self, value: object) -> Iterator[tuple[str, object]]:
        """The entries of a dictionary under texts; every one is counted, wherever it occurs."""
        for key, entry in value.items() if isinstance(value, dict) else ():
            self.seen += 1
            if self.seen > MAX_ENTRIES:
                raise ValueError(f"its modules hold more than {MAX_ENTRIES:,} entries")
            if isinstance(key, str):
                yield key, entry

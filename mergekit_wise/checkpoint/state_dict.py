"""From what a torch file holds to a flat map of names to tensors. Knows no file.

Files wrap their weights: a training checkpoint nests them beside the epoch and the optimizer, a pickled module keeps
them in its parts. What was walked through and what was left out is told, calls and classes by their names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint.checks import shown
from mergekit_wise.checkpoint.naming import SEARCHED, call_in, described, name_of
from mergekit_wise.checkpoint.pickle_machine import Stub
from mergekit_wise.checkpoint.pickled_module import is_module, module_tensors
from mergekit_wise.checkpoint.torch_objects import TensorView

NESTS = ("state_dict", "model_state_dict", "model", "module", "ema", "state_dict_ema", "model_ema")
"""Where training scripts put the weights; the first that is there is taken."""

MAX_DEPTH = 100

LISTED = 8
"""How many entries a note lists."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name, notes for the user on how they were found, and what was said of layers beside their tensors."""

    tensors: Mapping[str, TensorView]
    notes: tuple[str, ...]
    metadata: Mapping[str, str]


def find_state_dict(value: object) -> StateDict:
    """The weights inside an unpickled object. Raises ValueError if there are none."""
    notes: list[str] = []
    for _ in range(MAX_DEPTH):
        if isinstance(value, Stub) and is_module(value):
            notes.append(f"read the weights out of a pickled module ({name_of(value)})")
            held, strange, settings = module_tensors(value)
            return _told(held, strange, notes, settings)
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {described(value)}, not a state dict")
        if any(isinstance(entry, TensorView) for entry in value.values()):
            tensors = {
                key: entry for key, entry in value.items() if isinstance(key, str) and isinstance(entry, TensorView)
            }
            return _told(tensors, {key: entry for key, entry in value.items() if key not in tensors}, notes, {})
        nest = next((key for key in NESTS if isinstance(value.get(key), (dict, Stub)) and value[key]), None)
        if nest is None:
            raise ValueError(f"it holds a dictionary without tensors ({_listed(value.items()) or 'empty'})")
        others = _listed((key, entry) for key, entry in value.items() if key != nest)
        beside = f" (beside it, and not read: {others})" if others else ""
        notes.append(f"took {nest!r} out of the file's dictionary{beside}")
        value = value[nest]
    raise ValueError("its dictionaries are nested too deeply")


def _told(
    tensors: Mapping[str, TensorView], others: Mapping[str, object], notes: list[str], metadata: Mapping[str, str]
) -> StateDict:
    if not tensors:
        raise ValueError(f"it holds no tensors under names ({_listed(others.items()) or 'nothing at all'})")
    if others:
        notes.append(f"left out what is no tensor: {_listed(others.items())}")
    return StateDict(tensors, tuple(notes), metadata)


def _listed(entries: Iterable[tuple[object, object]]) -> str:
    """The first keys, those first whose entries hold something that would have been called or imported, and what."""
    labels: list[str] = []
    called: list[str] = []
    budget = iter(range(SEARCHED))
    for key, entry in entries:
        name = shown(str(key)) if isinstance(key, (str, int, float)) else name_of(key)
        call = call_in(entry, budget)
        if call is None:
            labels.append(name)
        else:
            called.append(f"{name} ({name_of(call)})")
    more = len(called) + len(labels) - LISTED
    return ", ".join((called + labels)[:LISTED]) + (f" and {more:,} more" if more > 0 else "")

"""What a value of a pickle is called when people are told of it. Knows no torch.

Calls and classes go by their own names: whoever reads "os.system" knows what kind of file this is.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from mergekit_wise.checkpoint.pickle_machine import Global, Stub

SEARCHED = 100_000
"""How many values are searched for a call to name; they may stand in each other without end."""


def name_of(value: object) -> str:
    """The class or function at the bottom of a stub; of anything else, its type."""
    while isinstance(value, Stub):
        value = value.kind
    return str(value) if isinstance(value, Global) else type(value).__name__


def call_in(value: object, budget: Iterator[object]) -> Stub | Global | None:
    """The first stub or name in a value, or in the lists and dictionaries that it is made of while `budget` lasts."""
    if isinstance(value, (Stub, Global)):
        return value
    waiting = [value]
    while waiting:
        for part in _parts(waiting.pop()):
            if isinstance(part, (Stub, Global)):
                return part
            if next(budget, None) is None:
                return None
            waiting.append(part)
    return None


def described(value: object) -> str:
    """What a value is, and what it would have called or imported, if anything."""
    return name_of(value) + ("" if isinstance(value, (Stub, Global)) else with_call(value))


def with_call(value: object) -> str:
    """A clause for an error, if there is a call or class in a value; else nothing."""
    call = call_in(value, iter(range(SEARCHED)))
    return "" if call is None else f" with {name_of(call)} in it"


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return chain(value, value.values())
    return value if isinstance(value, (list, tuple)) else ()

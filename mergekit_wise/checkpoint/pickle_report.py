"""How messages name the values of a pickle, and which names in it users should know of. Knows no torch and no file.

Calls and classes are reported by their own names: "os.system" tells the reader what kind of file this is.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from mergekit_wise.checkpoint.pickle_machine import Global, OpaqueKey, Stub
from mergekit_wise.wording import MAX_LISTED

SEARCHED = 100_000
"""How many values are searched for a call to name; values can be nested without end."""

MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "pty", "shutil", "sys", "ctypes"),
        *("runpy", "importlib", "imp", "code", "pdb", "pip", "pickle", "_pickle", "marshal"),
        *("socket", "urllib", "http", "ftplib", "smtplib", "requests", "webbrowser", "asyncio"),
    )
)
"""Top-level modules that no weights need."""

BUILTINS = frozenset(("eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__", "apply"))


class SuspiciousNames:
    """Collects the names in a pickle that no weights need, wherever they occur.

    Nothing in a pickle is executed, whatever its name. This is a report, not a defence, and need not be complete.
    """

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def observe(self, named: Global) -> None:
        """Take note of a class or function that the pickle names."""
        module = named.module.partition(".")[0]
        builtin = module in ("builtins", "__builtin__") and named.name in BUILTINS
        if (builtin or module in MODULES) and len(self._found) < MAX_LISTED:
            self._found[str(named)] = None

    def notes(self, others: Iterable[str]) -> tuple[str, ...]:
        """At most one note, on the names that `others`, the notes so far, do not mention."""
        text = " ".join(others)
        names = [name for name in self._found if name not in text]
        return (f"refers to {', '.join(names)}, which no weights need; it was not executed",) if names else ()


def name_of(value: object) -> str:
    """The class or function at the bottom of a stub; the type of any other value."""
    while isinstance(value, (Stub, OpaqueKey)):
        value = value.kind if isinstance(value, Stub) else value.key
    return str(value) if isinstance(value, Global) else type(value).__name__


def call_in(value: object, budget: Iterator[object]) -> Stub | Global | None:
    """The first call, class or function in a value and its nested lists and dictionaries, while `budget` lasts."""
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
    """The type of a value, and the call or class in it, if any."""
    return name_of(value) + ("" if isinstance(value, (Stub, Global)) else with_call(value))


def with_call(value: object) -> str:
    """A clause for a message that names the call or class in a value; an empty string if there is none."""
    call = call_in(value, iter(range(SEARCHED)))
    return "" if call is None else f" with {name_of(call)} in it"


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return chain(value, value.values())
    return value if isinstance(value, (list, tuple)) else ()

"""Names in a pickle that weights have no use for, so that people learn of them wherever they stand. Knows no file.

Nothing in a pickle is run, whatever it is called: this is no defence, and need not be complete.
"""

from collections.abc import Iterable

from mergekit_wise.checkpoint.pickle_machine import Global

MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "pty", "shutil", "sys", "ctypes"),
        *("runpy", "importlib", "imp", "code", "pdb", "pip", "pickle", "_pickle", "marshal"),
        *("socket", "urllib", "http", "ftplib", "smtplib", "requests", "webbrowser", "asyncio"),
    )
)
"""What stands first in the names of modules."""

BUILTINS = frozenset(("eval", "exec", "execfile", "compile", "open", "input", "breakpoint", "__import__", "apply"))

LISTED = 8
"""How many names a note lists, and how many are kept."""


class Suspects:
    """Hears every name of a pickle and keeps those that are suspicious."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def hear(self, named: Global) -> None:
        """Take note of a class or function."""
        first = named.module.partition(".")[0]
        builtin = first in ("builtins", "__builtin__") and named.name in BUILTINS
        if (builtin or first in MODULES) and len(self._found) < LISTED:
            self._found[str(named)] = None

    def notes(self, told: Iterable[str]) -> tuple[str, ...]:
        """A note on those that the notes before do not tell of; nothing if there are none."""
        text = " ".join(told)
        names = [name for name in self._found if name not in text]
        return (f"refers to {', '.join(names)}, which weights have no use for; it was not run",) if names else ()

"""Packages that import their modules on first use, so that a command loads only those that it needs.

The ``__init__`` of such a package has three lists of the same names, which a test compares: the imports, which type
checkers read; ``__all__``; and a table of names by modules, which `names_on_demand` reads.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names_on_demand(
    package: str, names: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose modules give it `names`.

    A name must differ from that of every module in the package: Python sets an imported module as an attribute, which
    would hide the name.
    """
    module_of = {name: module for module, theirs in names.items() for name in theirs}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    def listed() -> list[str]:
        return sorted({*vars(import_module(package)), *module_of})

    return get, listed

"""The suites by name. Knows which there are; knows nothing of what is in them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mergekit_wise.errors import SuiteError
from mergekit_wise.suites.dataset import Suite
from mergekit_wise.suites.digits import open_digits

SUITES: Mapping[str, Callable[[], Suite]] = MappingProxyType({"digits": open_digits})


def open_suite(name: str) -> Suite:
    """The suite called ``name``; :class:`SuiteError` lists the known ones where there is none."""
    if name not in SUITES:
        raise SuiteError(f"There is no suite {name!r}. Known suites: {', '.join(sorted(SUITES))}.")
    return SUITES[name]()

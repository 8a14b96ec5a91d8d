"""The progress of a command, as bars on stderr. Nothing is drawn, and rich not imported, if stderr is no terminal."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from mergekit_wise.cli.console import err, say
from mergekit_wise.option_types import run
from mergekit_wise.progress import Progress, silent

R = TypeVar("R")


def bars() -> AbstractContextManager[Progress]:
    """A progress callback that draws bars while the block runs, where somebody looks on."""
    if not err.on_screen:
        return nullcontext(silent)
    from mergekit_wise.cli.bars import drawn_bars

    return drawn_bars()


def perform(function: Callable[..., R], options: Any) -> R:
    """Run a function of the Python API while bars show its progress; what it notes on the way is printed."""
    with bars() as progress:
        if hasattr(options, "note"):
            options = replace(options, note=say)
        return run(function, replace(options, progress=progress))

"""The progress of a command on stderr: bars in a terminal, a line a minute elsewhere.

rich is not imported if stderr is no terminal.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Any, TypeVar

from mergekit_wise import launcher
from mergekit_wise.cli.console import err, say
from mergekit_wise.option_types import run
from mergekit_wise.progress import Progress, silent

R = TypeVar("R")


@contextmanager
def started(words: str, options: Any) -> Iterator[None]:
    """Say in a terminal that a command has begun, if it is one that reports progress.

    It may load libraries for seconds before it has anything else to show.
    """
    if any(field.name == "progress" for field in fields(options)):
        err.begin_status(f"Starting wise {words} ...")
    try:
        yield
    finally:
        err.end_status()


def bars() -> AbstractContextManager[Progress]:
    """A progress callback that draws bars while the block runs, or writes a line a minute where nobody looks on."""
    if err.on_screen:
        from mergekit_wise.cli.bars import drawn_bars

        return drawn_bars()
    if launcher.rank():  # of several processes that torchrun started, one reports
        return nullcontext(silent)
    from mergekit_wise.cli.log_lines import logged_lines

    return logged_lines(say)


def perform(function: Callable[..., R], options: Any) -> R:
    """Run a function of the Python API while its progress is shown; what it notes on the way is printed."""
    with bars() as progress:
        if hasattr(options, "note"):
            options = replace(options, note=say)
        return run(function, replace(options, progress=progress))

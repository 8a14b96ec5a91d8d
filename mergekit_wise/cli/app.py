"""The ``wise`` command: which commands there are, and how an error becomes a sentence and an exit code."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mergekit_wise.cli.demo import demo
from mergekit_wise.cli.diff import diff
from mergekit_wise.cli.evaluate import evaluate
from mergekit_wise.cli.inspect import inspect
from mergekit_wise.cli.merge import merge
from mergekit_wise.cli.sweep import sweep
from mergekit_wise.cli.verify import verify
from mergekit_wise.errors import UsageError, WiseError

INTERRUPTED = 130
"""The exit code that shells give a program that Ctrl-C ended."""


class _Group(TyperGroup):
    """Runs a command; a known error becomes a sentence on stderr, and a traceback only with --debug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WiseError as error:
            if ctx.params.get("debug"):
                raise
            complain(str(error))
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except KeyboardInterrupt:
            complain("Interrupted. No unfinished file was left behind.")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    help="Robust fine-tuning of zero-shot models: mix the weights before and after (WiSE-FT).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("merge")(merge)
app.command("sweep")(sweep)
app.command("eval")(evaluate)
app.command("verify")(verify)
app.command("inspect")(inspect)
app.command("diff")(diff)
app.command("demo")(demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mergekit_wise import __version__

        typer.echo(f"mergekit_wise {__version__}")
        raise typer.Exit()


@app.callback()
def wise(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Robust fine-tuning of zero-shot models: mix the weights before and after (WiSE-FT)."""
    if debug:
        sys.excepthook = sys.__excepthook__


def complain(message: str) -> None:
    """An error, on stderr."""
    from rich.text import Text

    from mergekit_wise.cli.console import err

    err.print(Text("error: ", style="bold red").append(message, style="default"), soft_wrap=True)


def main() -> None:
    """Entry point of the console script."""
    sys.excepthook = _defect
    # How long torch's threads spin before they sleep. By default so long that on busy cores they take the time from
    # the thread that they wait for; this is as fast on idle ones. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # What a job scheduler sends: end as Ctrl-C does, cleaning up on the way.
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    complain(
        f"{kind.__name__}: {error}\nThis is a defect of wise, not of your input. "
        "Run it again with 'wise --debug ...' and report what it prints."
    )

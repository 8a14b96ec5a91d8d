"""The ``wise`` command: which commands there are, and how an error becomes a sentence and an exit code."""

import io
import os
import sys
from typing import Annotated, Any

import typer

from mergekit_wise import launcher, signals
from mergekit_wise.cli.about import print_devices, print_versions
from mergekit_wise.cli.cache import cache, clear, ls
from mergekit_wise.cli.calibrate import calibrate
from mergekit_wise.cli.card import card
from mergekit_wise.cli.command import Group, help_width, register
from mergekit_wise.cli.compare import compare
from mergekit_wise.cli.convert import convert
from mergekit_wise.cli.demo import demo
from mergekit_wise.cli.diff import diff
from mergekit_wise.cli.doctor import doctor
from mergekit_wise.cli.evaluate import evaluate
from mergekit_wise.cli.fetch_data import data, fetch
from mergekit_wise.cli.finetune import finetune
from mergekit_wise.cli.fisher import fisher
from mergekit_wise.cli.init import init
from mergekit_wise.cli.inspect import inspect
from mergekit_wise.cli.merge import merge
from mergekit_wise.cli.predict import predict
from mergekit_wise.cli.push import push
from mergekit_wise.cli.recipe import recipe
from mergekit_wise.cli.report import report
from mergekit_wise.cli.rules import rules
from mergekit_wise.cli.soup import soup
from mergekit_wise.cli.suites import suites
from mergekit_wise.cli.sweep import sweep
from mergekit_wise.cli.verify import verify
from mergekit_wise.cli.zeroshot import zeroshot
from mergekit_wise.errors import UsageError, WiseError

ANYWHERE = ("--debug", "--no-config", "--full")
"""Options of ``wise`` itself that may also follow the command."""

TRANSPORTS = ("gloo", "NCCL")
"""What torch's errors name when the processes of a run cannot reach each other; gloo's have no class of their own."""


class _Group(Group):
    """Runs a command; a known error becomes a sentence on stderr, and a traceback only with --debug."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = [word for word in args[:end] if word not in ANYWHERE]
        return super().parse_args(ctx, [word for word in ANYWHERE if word in args[:end]] + words + args[end:])

    def get_params(self, ctx: Any) -> list[Any]:
        """Hide one of the two completion options, which the documentation describes."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            if param.name == "show_completion":
                param.hidden = True
        return params

    def invoke(self, ctx: Any) -> Any:
        try:
            with signals.raising():
                return super().invoke(ctx)
        except WiseError as error:
            if ctx.params.get("debug"):
                raise
            complain(str(error))
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except KeyboardInterrupt as error:
            from mergekit_wise.cli.console import say

            say(str(error) or "Interrupted. No unfinished file was left behind.")
            raise typer.Exit(signals.exit_code(error)) from None


app = typer.Typer(
    cls=_Group,
    help="Robust fine-tuning by interpolating zero-shot and fine-tuned weights (WiSE-FT).",
    no_args_is_help=True,
    # Plain text wraps at any width and can be copied; rich's boxes cut the names of options off where it is narrow.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
register(
    app,
    "zeroshot",
    zeroshot,
    "wise zeroshot ViT-B-32/openai --classes imagenet -o zs.safetensors",
    "wise zeroshot hf-hub:ORG/NAME --classes birds.txt -o zs.safetensors",
)
register(app, "finetune", finetune, "wise finetune zs.safetensors --train birds/train -o ft.safetensors --epochs 5")
register(
    app,
    "merge",
    merge,
    "wise merge zs.safetensors ft.safetensors --alpha 0.5 -o merged.safetensors",
    "wise merge zs.pt ft.pt --keep 'ft:classification_head.*' -o merged.safetensors",
)
register(
    app,
    "soup",
    soup,
    "wise soup zs.safetensors seed0.safetensors seed1.safetensors seed2.safetensors -o soup.safetensors",
    "wise soup zs.safetensors runs/*.safetensors --how greedy --select-on birds/val -o soup.safetensors",
)
register(
    app,
    "sweep",
    sweep,
    "wise sweep zs.safetensors ft.safetensors --alphas 0:1:0.1 --suite imagenet-shifts --data /data",
    "wise sweep zs.safetensors ft.safetensors --save 'wise-{alpha}.safetensors'",
    "wise sweep zs.safetensors ft.safetensors --evaluator retrieval:captions.csv",
)
register(app, "eval", evaluate, "wise eval merged.safetensors --suite imagenet-shifts --data /data")
register(
    app,
    "predict",
    predict,
    "wise predict merged.safetensors photos -o predictions.csv",
    "wise predict zs.safetensors --mix-with ft.safetensors --alpha 0.4 photos -o predictions.jsonl",
)
register(app, "calibrate", calibrate, "wise calibrate merged.safetensors --on birds/val -o calibrated.safetensors")
register(app, "fisher", fisher, "wise fisher ft.safetensors --on birds/train --limit 1000 -o ft-fisher.safetensors")
register(app, "report", report, "wise report results.jsonl -o report.html --latex tables.tex")
register(
    app,
    "compare",
    compare,
    "wise compare mine.jsonl theirs.jsonl",
    "wise compare sweep.jsonl --against 0.5",
)
register(app, "rules", rules, "wise rules zs.safetensors ft.safetensors --suite imagenet-shifts --data /data")
register(app, "recipe", recipe, "wise recipe birds.toml")
register(app, "init", init, "wise init")
register(app, "suites", suites, "wise suites --data /data")
app.add_typer(data, name="data")
register(data, "fetch", fetch, "wise data fetch imagenet-a --data /data", table="data-fetch")
app.add_typer(cache, name="cache")
register(cache, "ls", ls, "wise cache ls", table="cache-ls")
register(
    cache,
    "clear",
    clear,
    "wise cache clear",
    "wise cache clear heads --older-than 30",
    table="cache-clear",
)
register(app, "verify", verify, "wise verify merged.safetensors --zeroshot zs.safetensors --finetuned ft.safetensors")
register(app, "card", card, "wise card merged.safetensors --results results.jsonl --license mit")
register(
    app,
    "push",
    push,
    "wise push merged.safetensors my-name/my-model --results results.jsonl --dry-run",
    "wise push merged.safetensors my-name/my-model --private",
)
register(app, "inspect", inspect, "wise inspect merged.safetensors")
register(app, "diff", diff, "wise diff zs.safetensors ft.safetensors")
register(
    app,
    "convert",
    convert,
    "wise convert hf-hub:openai/clip-vit-base-patch32 -o clip.safetensors --to open_clip",
    "wise convert merged.safetensors -o merged --to hf",
)
register(app, "demo", demo, "wise demo wise-demo")
register(app, "doctor", doctor, "wise doctor", "wise doctor --json")


@app.callback()
def wise(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_versions, is_eager=True, help="Show versions."),
    ] = False,
    devices: Annotated[
        bool,
        typer.Option("--devices", callback=print_devices, is_eager=True, help="List available devices."),
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Print long tables and lists in full.")] = False,
    no_config: Annotated[bool, typer.Option("--no-config", help="Do not read wise.toml in this folder.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Robust fine-tuning by interpolating zero-shot and fine-tuned weights (WiSE-FT)."""
    from mergekit_wise.cli import console

    console.out.full = console.err.full = full


def complain(message: str) -> None:
    """Print an error on stderr."""
    from mergekit_wise.cli.console import fail

    fail(message)


def main() -> None:
    """Run the command line of this process, and end it."""
    # How long torch's threads spin before they sleep. The default is so long that on busy cores they take time from
    # the thread that they wait for; this is as fast on idle cores. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    signals.leave_at_once("Interrupted before any work was done. Nothing was written.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be valid text, and not every terminal can show every character.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _run()
    signals.leave_at_once("Interrupted while exiting, after the work had ended.")
    sys.exit(_flush() or code)


def _run() -> int | str | None:
    """Run the command; returns its exit code."""
    try:
        app(terminal_width=help_width())
    except SystemExit as end:
        return end.code
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        complain(_unforeseen(error))
        return 1
    return 0


def _flush() -> int:
    """Write what stdout still holds; the exit code of a failure, or 0. The interpreter would print a traceback."""
    if sys.stdout is None:  # closed by the caller
        return 0
    try:
        sys.stdout.flush()
    except OSError as error:
        from mergekit_wise.cli.console import BROKEN_PIPE, discard

        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # whoever reads has read enough, as in wise suites | head -1
            return BROKEN_PIPE
        complain(f"The results cannot be printed: {error.strerror}. Redirect stdout to another place.")
        return 1
    return 0


def _unforeseen(error: Exception) -> str:
    """The message for an error that is not a WiseError."""
    if isinstance(error, MemoryError):
        return "This machine does not have enough memory for this."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}."
    if launcher.world_size() > 1 and isinstance(error, RuntimeError) and any(name in str(error) for name in TRANSPORTS):
        return (
            f"Process {launcher.rank()} lost the connection to another process of this run, which has probably ended. "
            "Look for the reason among the messages of the others, and run the same command to continue."
        )
    return (
        f"{type(error).__name__}: {error}\nThis is a bug in wise, not in your input. "
        "Run it again with 'wise --debug ...' and report what it prints."
    )

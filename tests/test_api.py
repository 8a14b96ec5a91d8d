"""The Python API, used as a user would, under the strict type checker: see `test_this_file_passes_the_type_checker`."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import mergekit_wise
from mergekit_wise.cli.app import app
from mergekit_wise.recipes.finetune_request import FinetuneRequest
from mergekit_wise.recipes.request import MergeRequest
from mergekit_wise.recipes.setting import Setting

COMMANDS = {"merge": "merge", "sweep": "sweep", "evaluate": "eval", "finetune": "finetune"}
# What is asked for by other names, or by another function: mmap=False, preview, draw_scatter.
ONLY_TYPED = {"as_json", "dry_run", "no_mmap", "plot"}
OTHERWISE = {"alphas", "results", "suite"}


def use_merge(first: Path, second: Path, folder: Path) -> float | None:
    """A user's script: what it reads of a report has a type."""
    from mergekit_wise import merge

    report = merge(first, second, folder / "out.safetensors", alpha=0.25, dtype="bf16")
    moved: float | None = report.distance
    return moved


def test_merge(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """With the defaults of the command."""
    moved = use_merge(*pair, tmp_path)
    assert moved is not None
    assert moved > 0
    assert (tmp_path / "out.safetensors").exists()


def test_importing_the_package_imports_nothing_large() -> None:
    """Functions come when they are asked for."""
    code = "import sys, mergekit_wise; assert not {'torch', 'numpy', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_there_is_no_attribute() -> None:
    """As Python says it, so that `hasattr` works."""
    assert not hasattr(mergekit_wise, "nothing")
    assert set(COMMANDS) < set(mergekit_wise.__all__)


def defaults(name: str) -> dict[str, object]:
    """Of a function's own arguments, and of those that it takes as options."""
    own = inspect.signature(getattr(mergekit_wise, name)).parameters
    found = {key: argument.default for key, argument in own.items()}
    requests: dict[str, type] = {
        "merge": MergeRequest,
        "sweep": Setting,
        "evaluate": Setting,
        "finetune": FinetuneRequest,
    }
    return found | {field.name: field.default for field in fields(requests[name])}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_arguments_have_the_same_names_and_defaults(name: str) -> None:
    """But for what only a terminal needs, or what is text there; functions write no results unless they are told to."""
    command = next(entry for entry in app.registered_commands if entry.name == COMMANDS[name])
    assert command.callback is not None
    options = inspect.signature(command.callback).parameters
    arguments = defaults(name)
    assert options.keys() - arguments.keys() <= ONLY_TYPED
    for key in options.keys() & arguments.keys() - OTHERWISE:
        ours, theirs = arguments[key], options[key].default
        if key in ("zeroshot", "finetuned", "output", "checkpoint", "data") or theirs is inspect.Parameter.empty:
            continue
        assert (ours or None) == (theirs or None), key


def test_this_file_passes_the_type_checker() -> None:
    """In strict mode, against the package as it is installed."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", __file__]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stdout

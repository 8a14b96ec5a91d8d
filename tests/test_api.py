"""The Python API, used as a user would, under the strict type checker: see `test_this_file_passes_the_type_checker`."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
import typer

import mergekit_wise
from mergekit_wise.cli.app import app
from mergekit_wise.merging import parse_alphas
from mergekit_wise.options import (
    EvalKeywords,
    EvalOptions,
    FinetuneKeywords,
    FinetuneOptions,
    MergeKeywords,
    MergeOptions,
)

COMMANDS = {"merge": "merge", "sweep": "sweep", "evaluate": "eval", "finetune": "finetune"}
OPTIONS: dict[str, tuple[type, type]] = {
    "merge": (MergeOptions, MergeKeywords),
    "sweep": (EvalOptions, EvalKeywords),
    "evaluate": (EvalOptions, EvalKeywords),
    "finetune": (FinetuneOptions, FinetuneKeywords),
}
"""What a function's options mean and by default are, and their types."""

# What is asked for by other names, or by another function: mmap=False, preview, draw_scatter.
ONLY_TYPED = {"as_json", "dry_run", "no_mmap", "plot"}
ONLY_CALLED = {"mmap", "note", "progress"}


def use_merge(first: Path, second: Path, folder: Path) -> float | None:
    """A user's script: what it reads of a report has a type."""
    from mergekit_wise import merge

    report = merge(first, second, folder / "out.safetensors", alpha=0.25, dtype="bf16")
    moved: float | None = report.distance
    return moved


def use_sweep(first: Path, second: Path) -> tuple[float, str, list[float]]:
    """So it is with a sweep."""
    from mergekit_wise import sweep

    found = sweep(first, second, alphas=(0, 0.5, 1), suite="digits", results=Path("results.jsonl"), refine=True)
    chosen = found.recommendation
    return chosen.alpha, chosen.reason, [candidate.shift_average.low for candidate in found.candidates]


def use_evaluate(checkpoint: Path) -> dict[str, tuple[float, tuple[float, float]]]:
    """With an evaluation."""
    from mergekit_wise import evaluate

    measured = evaluate(checkpoint, "digits", limit=100, classnames=("zero", "one"), strict=True)
    return {record.dataset: (record.accuracy, record.interval) for record in measured.records}


def use_finetune(checkpoint: Path, folder: Path) -> list[float]:
    """And with fine-tuning."""
    from mergekit_wise import finetune

    report = finetune(checkpoint, "digits", folder / "out.safetensors", epochs=2, freeze=("visual.*",), note=print)
    return [epoch.loss for epoch in report.epochs]


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
    taken = {field.name: field.default for field in fields(OPTIONS[name][0])}
    return taken | {key: argument.default for key, argument in own.items() if key != "options"}


def same(key: str, argument: object, option: object) -> bool:
    """Whether defaults mean the same: lists are text on the command line, and none of a list is None there."""
    if key == "alphas":
        return isinstance(option, str) and argument == parse_alphas(option)
    return (argument, option) == ((), None) or (argument == option and type(argument) is type(option))


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_arguments_have_the_same_names_and_defaults(name: str) -> None:
    """But for what only a terminal needs or only a program can use; functions write no results unless told to."""
    command = next(entry for entry in app.registered_commands if entry.name == COMMANDS[name])
    assert command.callback is not None
    options = inspect.signature(command.callback).parameters
    arguments = defaults(name)
    assert options.keys() - arguments.keys() <= ONLY_TYPED
    assert arguments.keys() - options.keys() <= ONLY_CALLED
    for key in options.keys() & arguments.keys():
        argument, option = arguments[key], options[key].default
        if key == "results":
            assert (argument, option) == (None, Path("results.jsonl"))
        else:
            assert same(key, argument, option), f"{key}: {argument!r} and {option!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_typed_by_the_names_on_the_command_line(name: str) -> None:
    """``--batch-size`` is ``batch_size``; what is asked for by name has a type, and a meaning in the documentation."""
    command = typer.main.get_command(app).commands[COMMANDS[name]]  # type: ignore[attr-defined]
    long = {p.name: p.opts[0] for p in command.params if p.param_type_name == "option"}
    assert all(long[key] == f"--{key.replace('_', '-')}" for key in long.keys() - {"as_json"})
    meaning, types = OPTIONS[name]
    own = inspect.signature(getattr(mergekit_wise, name)).parameters.keys()
    assert get_type_hints(types).keys() == {field.name for field in fields(meaning)} - own
    assert meaning.__doc__ is not None
    told = re.findall(r"^ {8}([a-z_, ]+):", meaning.__doc__, re.MULTILINE)
    assert set(", ".join(told).split(", ")) == {field.name for field in fields(meaning)}


def test_this_file_passes_the_type_checker() -> None:
    """In strict mode, against the package as it is installed."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", __file__]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stdout

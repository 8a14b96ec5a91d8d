"""The Python API, used as a user would, under the strict type checker: see `errors`."""

import inspect
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.core import TyperGroup

import mergekit_wise
from mergekit_wise.cli.app import app
from mergekit_wise.errors import UsageError, WiseError
from mergekit_wise.option_types import declared_options
from mergekit_wise.options import (
    EvalOptions,
    FinetuneOptions,
    FisherOptions,
    MergeOptions,
    PredictOptions,
    SweepOptions,
)

FUNCTIONS = {
    "merge": MergeOptions,
    "sweep": SweepOptions,
    "evaluate": EvalOptions,
    "predict": PredictOptions,
    "finetune": FinetuneOptions,
    "fisher": FisherOptions,
}


def use_merge(first: Path, second: Path, folder: Path) -> float | None:
    """A user's script: the report's fields have types."""
    from mergekit_wise import merge

    report = merge(str(first), second, folder / "out.safetensors", alpha=0.25, dtype=torch.bfloat16, keep="zs:scale")
    moved: float | None = report.distance
    return moved


def use_sweep(first: Path, second: Path) -> tuple[float | None, str, list[float]]:
    """A user's script that reads a sweep's recommendation and candidates."""
    from mergekit_wise import sweep

    found = sweep(first, second, alphas=[0, 0.5, 1], suite=["digits"], results="results.jsonl", refine=True)
    chosen = found.recommendation
    return chosen.alpha, chosen.reason, [candidate.shift_average.low for candidate in found.candidates]


def use_evaluate(checkpoint: Path) -> dict[str, tuple[float, tuple[float, float]]]:
    """A user's script that reads an evaluation's records."""
    from mergekit_wise import evaluate

    measured = evaluate(checkpoint, "digits", limit=100, classnames=["zero", "one"], strict=True)
    return {record.dataset: (record.accuracy, record.interval) for record in measured.records}


def use_compare(first: Path, second: Path) -> dict[str, tuple[float, str]]:
    """A user's script that reads which of two models is better where."""
    from mergekit_wise import compare

    (found,) = compare(first, str(second), suite="digits").comparisons
    return {column.column: (column.difference.low, column.better) for column in found.columns}


def use_finetune(checkpoint: Path, folder: Path) -> list[float]:
    """A user's script that reads the epochs of a fine-tuning."""
    from mergekit_wise import finetune

    report = finetune(checkpoint, "digits", folder / "out.safetensors", epochs=2, freeze=["visual.*"], note=print)
    return [epoch.loss for epoch in report.epochs]


def test_a_typed_script_merges(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A merge by a typed script writes its output and reports the relative change."""
    moved = use_merge(*pair, tmp_path)
    assert moved is not None
    assert moved > 0
    assert (tmp_path / "out.safetensors").exists()


def test_importing_the_package_imports_nothing_large() -> None:
    """Importing the package imports neither torch nor NumPy nor Typer, as functions are loaded on first use."""
    code = "import sys, mergekit_wise; assert not {'torch', 'numpy', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_not_an_attribute() -> None:
    """The package has no unknown attribute, and lists its functions in `__all__`."""
    assert not hasattr(mergekit_wise, "nothing")
    assert set(FUNCTIONS) < set(mergekit_wise.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_every_option_in_its_signature_and_its_help(name: str) -> None:
    """Options are keyword arguments with their defaults and types, and `help` says what each means."""
    function = getattr(mergekit_wise, name)
    parameters = inspect.signature(function).parameters
    text = pydoc.plain(pydoc.render_doc(function))
    for option, declared in declared_options(FUNCTIONS[name]).items():
        parameter = parameters[option]
        assert parameter.annotation is not inspect.Parameter.empty
        assert (parameter.default is inspect.Parameter.empty) == declared.required
        assert f"\n        {option}: {' '.join(declared.option.help.split()[:2])}" in text
    assert parameters.keys() >= {"progress"}


def test_arguments_may_have_every_usual_type(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A text or a path, one pattern or a list, and a torch dtype or its name give the same bytes."""
    from mergekit_wise import merge

    outputs = [tmp_path / name for name in ("a", "b")]
    merge(*pair, outputs[0], only="layer.*", dtype="float32")
    merge(str(pair[0]), str(pair[1]), str(outputs[1]), only=["layer.*"], dtype=torch.float32)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"fisher_floor": -1}, "fisher_floor"),
        ({"alpha": "half"}, "alpha"),
        ({"alpha": 2}, "alpha"),
        ({"only": [["a"]]}, "only"),
        ({"shard_size": "many"}, "shard_size"),
        ({"mmap": "yes"}, "mmap"),
        ({"keep": ("zs",)}, "keep"),
        ({"allow_non_finite": 3}, "allow_non_finite"),
    ],
)
def test_errors_name_arguments_and_no_options(
    arguments: dict[str, Any], name: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """A wrong value is a UsageError that names the Python argument and no command-line option."""
    with pytest.raises(UsageError, match=rf"^`{name}` ") as error:
        mergekit_wise.merge(*pair, tmp_path / "out", **arguments)
    assert "--" not in str(error.value)


def test_errors_during_the_work_name_arguments_as_well(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Errors during the work give their advice by the names of Python arguments."""
    with pytest.raises(WiseError, match=r"\bdevice\b") as error:
        mergekit_wise.merge(*pair, tmp_path / "out", device="cuda:99")
    assert "--" not in str(error.value)


def test_every_command_has_its_function() -> None:
    """Each command of the terminal is a function of the package, with the arguments of its options."""
    other = {
        **{"eval": "evaluate", "report": "write_report", "data fetch": "fetch_data"},
        **{"cache ls": "list_cache", "cache clear": "clear_cache"},
    }
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    found = set(commands.commands) - {"data", "cache"} | {"data fetch", "cache ls", "cache clear"}
    assert {"merge", "sweep", "verify", "init", "recipe", "demo"} <= found
    for command in found:
        function = getattr(mergekit_wise, other.get(command, command))
        assert "Args:" in pydoc.plain(pydoc.render_doc(function))
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty


def test_results_and_errors_are_those_that_functions_return_and_raise(pair: tuple[Path, Path]) -> None:
    """A class of results or errors that the package gives is the very class of what its functions return or raise."""
    assert isinstance(mergekit_wise.inspect(pair[0]), mergekit_wise.Inspection)
    assert isinstance(mergekit_wise.merge(*pair), mergekit_wise.StateDict)
    with pytest.raises(mergekit_wise.CheckpointError):
        mergekit_wise.inspect("missing.safetensors")
    assert mergekit_wise.WiseError is WiseError


SCRIPT = """
import mergekit_wise
import torch
from mergekit_wise import MergeReport, Record, StateDict, SweepReport, WiseError, compare, sweep

def use(module: torch.nn.Module) -> float:
    try:
        found: SweepReport = sweep("zs", "ft", suite=["digits"], alphas="0:1:0.1")
    except WiseError:
        return 0.0
    record: Record = found.records[0]
    entry: dict[str, object] = found.to_dict()
    text: str = repr(found)
    figure = found.plot()
    figure.savefig("figure.png")
    mergekit_wise.verify("m.safetensors", zeroshot=module, finetuned={"a": torch.zeros(1)})
    mergekit_wise.write_report(["a.jsonl"], output="page.html")
    state = mergekit_wise.merge(module, "ft.safetensors", alpha=0.4)
    assert isinstance(state, StateDict)
    module.load_state_dict(state)
    report: MergeReport = mergekit_wise.merge("zs", "ft", "out.safetensors")
    return record.value + len(entry) + len(text) + len(state) + report.alpha
"""

WRONG = """
import mergekit_wise

mergekit_wise.sweep("zs", "ft", alphaz=[0, 1])  # call-arg
mergekit_wise.merge("zs", "ft", "out", alpha="half")  # arg-type
mergekit_wise.evaluate(3)  # arg-type
mergekit_wise.nothing("zs")  # attr-defined
mergekit_wise.compare("a.jsonl").recommendation  # attr-defined
mergekit_wise.evaluate("zs").records[0].acuracy  # attr-defined
number: int = mergekit_wise.suites().to_dict()  # assignment
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy finds in the package, in this file and in two scripts, by the name of the file.

    All in one run, as most of its time is spent on the libraries that they import. It is strict because pyproject.toml
    says so, and reads what an earlier run with the same options found.
    """
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "right.py").write_text(SCRIPT)
    (scripts / "wrong.py").write_text(WRONG)
    checked = ["mergekit_wise", __file__, str(scripts / "right.py"), str(scripts / "wrong.py")]
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *checked]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 1, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        found.setdefault(Path(line.partition(":")[0]).name, []).append(line)
    return found


def test_the_type_checker_is_strict() -> None:
    """Mypy is asked for every strict check, of the package and of those who use it."""
    settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    assert settings["files"] == ["mergekit_wise"]
    assert all(set(each) == {"module", "ignore_missing_imports"} for each in settings["overrides"])


@pytest.mark.slow
def test_the_package_and_this_file_pass_the_type_checker(errors: dict[str, list[str]]) -> None:
    """Mypy accepts the package, every file of it, and this one, which uses it."""
    assert set(errors) == {"wrong.py"}, errors


@pytest.mark.slow
def test_a_users_script_is_checked(errors: dict[str, list[str]]) -> None:
    """Mypy accepts a correct script, and refuses each wrong line of another one and no other line."""
    assert "right.py" not in errors, errors
    found = {int(line.split(":")[1]): line for line in errors["wrong.py"] if " error: " in line}
    for number, line in enumerate(WRONG.splitlines(), 1):
        code = line.partition("  # ")[2]
        assert (number in found) == bool(code), errors
        assert not code or f"[{code}]" in found[number], errors

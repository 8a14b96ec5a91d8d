"""`wise` itself: versions, devices, completion, and errors that are no fault of the user."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

import pytest
import torch
import typer

from mergekit_wise import __version__
from mergekit_wise.cli.app import app

BREAK = """
import sys
import mergekit_wise.models.source
def locate(*_, **__):
    raise {error}
mergekit_wise.models.source.locate = locate
from mergekit_wise.cli.app import main
main()
"""


@pytest.fixture
def broken(tmp_path):
    """Run `wise inspect` where opening the file raises an error; returns the exit code and stderr."""

    def run(error, *words):
        script = BREAK.format(error=error)
        done = subprocess.run([sys.executable, "-c", script, *words, "inspect", "x"], capture_output=True, text=True)
        assert done.stdout == ""
        return done.returncode, done.stderr

    return run


def test_version_lists_everything_that_results_depend_on(wise):
    """`wise --version` prints the versions of the tool, of Python and of the installed libraries."""
    lines = wise("--version").stdout.splitlines()
    assert lines[:2] == [f"mergekit_wise {__version__}", f"Python {platform.python_version()}"]
    assert lines[2:4] == [f"{name} {metadata.version(name)}" for name in ("torch", "open_clip_torch")]


def test_version_imports_nothing_heavy():
    """`wise --version` reads the libraries' metadata and imports none of them."""
    script = "import sys; from mergekit_wise.cli.app import main\ntry: main()\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("mergekit_wise")
    for name in ("torch", "open_clip", "numpy", "rich"):
        assert f"'{name}'" not in done.stdout.splitlines()[-1]


def test_devices_are_those_of_torch(wise):
    """`wise --devices` lists the CPU first and then one line for each GPU that torch finds."""
    lines = wise("--devices").stdout.splitlines()
    assert lines[0].split()[0] == "cpu"
    assert sum(line.startswith("cuda:") for line in lines) == torch.cuda.device_count()


def test_no_command_shows_the_help(wise):
    """`wise` without a command prints the help and exits with code 2."""
    result = wise()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_a_misspelt_command_is_corrected(wise):
    """A misspelt command is an error with exit code 2 that suggests the known command."""
    result = wise("swep")
    assert result.exit_code == 2
    assert "'swep'" in result.stderr
    assert "'sweep'" in result.stderr


@pytest.mark.parametrize("words", [("--debug", "inspect", "nope"), ("inspect", "nope", "--debug")])
def test_debug_is_accepted_before_and_after_the_command(words, wise):
    """`--debug` is accepted before and after the command, and lets the exception through."""
    assert "CheckpointError" in repr(wise(*words).exception)


def test_after_two_dashes_everything_is_a_name(wise):
    """A word after `--` is a file name, even if it looks like an option."""
    result = wise("inspect", "--", "--debug")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --debug: ")


def test_an_unexpected_exception_is_reported_without_a_traceback(broken):
    """An unexpected exception becomes one sentence that calls it a defect, without a traceback."""
    code, printed = broken("ValueError('odd')")
    assert code == 1
    assert printed.startswith("error: ValueError: odd\n")
    assert "--debug" in printed
    assert "Traceback" not in printed


def test_an_unexpected_exception_has_a_traceback_with_debug(broken):
    """With `--debug` an unexpected exception is printed with its traceback."""
    code, printed = broken("ValueError('odd')", "--debug")
    assert code == 1
    assert printed.startswith("Traceback")
    assert printed.endswith("ValueError: odd\n")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        ("OSError(28, 'No space left on device', 'out')", "No space left on device: out"),
        ("OSError(5, 'Input/output error')", "Input/output error"),
        ("MemoryError()", "memory"),
    ],
)
def test_an_error_of_the_operating_system_is_not_called_a_defect(error, part, broken):
    """An error of the operating system is one sentence, and is not called a defect."""
    code, printed = broken(error)
    assert code == 1
    assert printed.startswith("error: ")
    assert part in printed
    assert printed.count("\n") == 1
    assert "--debug" not in printed


@pytest.fixture
def bash(tmp_path):
    """Completes a command line in a real bash that has sourced the script that wise prints."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    program = tmp_path / "bin" / "wise"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom mergekit_wise.cli.app import main\nmain()\n")
    program.chmod(0o755)

    def run(*words):
        line = " ".join(f"'{word}'" for word in ("wise", *words))
        script = (
            f'PATH="{program.parent}:$PATH"; source <(_WISE_COMPLETE=source_bash wise); complete -p wise\n'
            f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _wise_completion wise; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        rule, *found = done.stdout.split("\n")
        assert rule == "complete -o default -F _wise_completion wise"
        return [word for word in found if word]

    return run


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("sw",), ["sweep"]),
        (("merge", "--fish"), ["--fisher", "--fisher-floor"]),
        (("--no",), ["--no-config"]),
        (("merge", "zs"), []),
        (("eval", "model", "--suite", "imagenet-sh"), ["imagenet-shifts"]),
        (("eval", "model", "--suite", "digits,imagenet-sk"), ["digits,imagenet-sketch"]),
        (("finetune", "model", "--train", "cifar100"), ["cifar100"]),
        (("finetune", "model", "--augment", "crop"), ["crop", "crop-flip"]),
        (("sweep", "zs", "ft", "--prefer", "re"), ["reference"]),
        (("data", "fetch", "imagenet-r"), ["imagenet-r", "imagenet-real"]),
    ],
)
def test_bash_completes(words, found, bash, tmp_path):
    """Commands, options, choices, suites and data sets are completed, even beside a broken wise.toml."""
    (tmp_path / "wise.toml").write_text("=")
    assert bash(*words) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [("wise eval model --suite imagenet-sh", "imagenet-shifts"), ("wise eval model --precision b", "bf16")],
)
def test_zsh_gets_the_same_values(line, found, tmp_path):
    """The values that zsh's completion function receives are those that bash receives."""
    asked = {"_WISE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    script = "import sys; sys.argv = ['wise']; from mergekit_wise.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **asked}
    )
    assert f'"{found}"' in done.stdout, done.stderr


@pytest.mark.parametrize("group", ["data", "cache"])
def test_a_group_lists_its_commands_with_their_whole_sentences(group, wise):
    """The help of a group cuts nothing off, as that of `wise` itself does not."""
    shown = " ".join(wise(group, "--help").stdout.split())
    for command in typer.main.get_command(app).commands[group].commands.values():
        assert command.help in shown

"""Start-up time: help, merging and inspecting import no library that they do not use."""

import json
import subprocess
import sys

import pytest
import typer
from typer.core import TyperGroup

from mergekit_wise.cli.app import app

HEAVY = {"torch", "open_clip", "matplotlib", "scipy", "numpy", "sklearn", "PIL"}
PROBE = """
import json, sys
sys.argv = ["wise", *{words!r}]
from mergekit_wise.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(*words):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=list(words))], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert not code, done.stderr
    return set(modules)


def commands(group, *path):
    """Yield the words of every command, of groups and of `wise` itself."""
    yield path
    for name, command in group.commands.items():
        yield from commands(command, *path, name) if isinstance(command, TyperGroup) else [(*path, name)]


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_imports_nothing_heavy(words):
    """The help of every command imports neither torch nor any numerical or plotting library."""
    assert not modules_after(*words, "--help") & HEAVY


def test_the_list_of_commands_needs_no_options():
    """`wise --help` shows no options, so that it does not spend time on their declarations."""
    assert "mergekit_wise.options" not in modules_after("--help")
    assert "mergekit_wise.options" in modules_after("merge", "--help")


def test_every_command_is_known():
    """The list of commands that these tests use includes those in groups."""
    assert {("merge",), ("recipe",), ("data", "fetch")} <= set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ("merge", "zs.pt", "ft.safetensors", "-o", "out"),
        ("merge", "zs.pt", "ft.safetensors", "-o", "out", "--dry-run"),
        ("merge", "zs", "ft", "-o", "out"),
        ("sweep", "zs.pt", "ft.safetensors", "--save", "{alpha}", "--alphas", "0,0.5"),
    ],
    ids=["files", "preview", "folders", "several alphas"],
)
def test_a_merge_on_the_cpu_needs_no_torch(words, pair, tmp_path, monkeypatch):
    """Merging on the CPU imports NumPy and no larger library, because importing torch takes longer."""
    for name in ("zs", "ft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(pair[1].read_bytes())
        (tmp_path / name / "config.json").write_text('{"model_type": "clip"}')
    monkeypatch.chdir(tmp_path)
    assert modules_after(*words) & HEAVY == {"numpy"}


@pytest.mark.parametrize("command", ["inspect", "diff"])
def test_inspecting_files_needs_no_torch(command, pair):
    """Inspecting and comparing files imports no torch, as headers and NumPy suffice."""
    words = [str(pair[0])] if command == "inspect" else [str(path) for path in pair]
    assert not modules_after(command, *words) & (HEAVY - {"numpy"})

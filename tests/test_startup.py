"""Start-up time: help, merging and inspecting import no library that they do not use."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import typer
from typer.core import TyperGroup

from mergekit_wise.cli.app import app

HEAVY = {"torch", "open_clip", "matplotlib", "scipy", "numpy", "sklearn", "PIL"}
CONVENIENCES = {"pydantic", "rich", "jinja2", "huggingface_hub", "ml_dtypes", "zipfile", "email", "importlib.metadata"}
"""What draws, converts or talks to the hub, and readers of other files than safetensors; each takes milliseconds."""

ELSEWHERE = {
    "mergekit_wise.checkpoint.derived",
    "mergekit_wise.checkpoint.pickle_machine",
    "mergekit_wise.checkpoint.torch_pickle",
    "mergekit_wise.checkpoint.torch_zip",
    "mergekit_wise.models.adapted",
    "mergekit_wise.models.families",
    "mergekit_wise.models.in_memory",
    "mergekit_wise.models.merge_command",
    "mergekit_wise.models.mismatch",
    "mergekit_wise.models.soup",
    "mergekit_wise.analysis.choice",
    "mergekit_wise.results",
    "mergekit_wise.evaluation",
    "mergekit_wise.report",
    "mergekit_wise.cli.bars",
    "mergekit_wise.cli.drawing",
}
"""Modules for what a plain merge is not about."""

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


def modules_after(*words, fails=False):
    """The modules that a command has loaded in the end, which must succeed unless it `fails`."""
    words = list(map(str, words))
    done = subprocess.run([sys.executable, "-c", PROBE.format(words=words)], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert bool(code) == fails, done.stderr
    return set(modules)


def commands(group, *path):
    """Yield the words of every command, of groups and of `wise` itself."""
    yield path
    for name, command in group.commands.items():
        yield from commands(command, *path, name) if isinstance(command, TyperGroup) else [(*path, name)]


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_imports_nothing_heavy(words):
    """The help of every command imports no numerical or plotting library, and neither Typer's converter nor rich."""
    assert not modules_after(*words, "--help") & {*HEAVY, "pydantic", "rich"}


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
    assert not modules_after(command, *words) & {*HEAVY - {"numpy"}, "rich", "pydantic", "mergekit_wise.results"}


@pytest.mark.parametrize("words", [(), ("--version",), ("cache",), ("cache", "clear")])
def test_commands_that_print_few_lines_convert_and_draw_nothing(words):
    """Neither Typer's converter nor rich is loaded for plain text, in groups of commands neither."""
    assert not modules_after(*words, fails=len(words) < 1 or words == ("cache",)) & {"pydantic", "rich"}


def test_a_plain_merge_loads_what_it_needs(pair, tmp_path):
    """Merging two safetensors files into a third loads nothing for other formats, models, terminals or results."""
    loaded = modules_after("merge", pair[1], pair[1], "-o", tmp_path / "out.safetensors")
    assert not loaded & (CONVENIENCES | ELSEWHERE)
    assert "mergekit_wise.checkpoint.safetensors" in loaded


def test_a_wrong_option_loads_nothing_to_work_with(tmp_path):
    """An error of usage is a sentence before anything is imported that reads checkpoints."""
    loaded = modules_after("merge", "a", "b", "-o", tmp_path / "out", "--alpha", "half", fails=True)
    assert not loaded & (HEAVY | CONVENIENCES | {"mergekit_wise.api.merge", "mergekit_wise.checkpoint"})


def test_what_was_left_out_is_loaded_where_it_is_needed(pair, tmp_path):
    """The modules that a plain merge does without exist, and a pickle loads those that read it."""
    loaded = modules_after("merge", *pair, "-o", tmp_path / "out")
    assert {"mergekit_wise.checkpoint.torch_zip", "mergekit_wise.checkpoint.pickle_machine", "zipfile"} <= loaded
    assert all(find_spec(name) for name in CONVENIENCES | ELSEWHERE)


def test_a_command_makes_its_own_options_only():
    """A class of options becomes a dataclass when it is first used; the help of a command uses the command's class."""
    code = (
        "import mergekit_wise.options as o; o.options_of('diff');"
        "print(*(n for n, c in vars(o).items() if isinstance(c, type) and '__dataclass_fields__' in vars(c)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = {name for name in done.stdout.split() if name.endswith("Options")}
    assert made == {"DiffOptions"}

"""Outputs are held against inputs and against each other, from the declarations of options, for every command."""

import os
from pathlib import Path

import pytest

from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.options import COMMANDS, declared_options
from mergekit_wise.output_paths import require_apart

REQUIRED = {"name": "x", "to": "hf", "alphas": "0,1", "output": "out.safetensors"}
EVERY = [
    (command, written.name, read.name)
    for command, (options, _) in COMMANDS.items()
    for written in declared_options(options).values()
    for read in declared_options(options).values()
    if written.option.path in ("output", "folder") and read.option.path == "input"
]


@pytest.mark.parametrize(("command", "written", "read"), EVERY, ids="-".join)
def test_no_output_of_any_command_is_an_input(command, written, read, tmp_path, monkeypatch):
    """Every option that names an output refuses what any option that names an input reads, under a link, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    options, _ = COMMANDS[command]
    declared = declared_options(options)
    replaced, instead = {each.option.replaces for each in declared.values()}, declared[read].option.replaces
    needed = [name for name, each in declared.items() if each.is_required or name in replaced]
    given = {name: REQUIRED.get(name, f"{name}.x") for name in needed if name != instead}
    value = ("other", "file") if declared[read].is_pair else "file"
    with pytest.raises(OutputError, match="link: the output of .* is one of the inputs"):
        options(**{**given, written: "link", read: value})
    options(**{**given, written: "elsewhere", read: value})


def test_every_command_that_writes_is_among_them():
    """The list of pairs is not empty by mistake."""
    assert {command for command, _, _ in EVERY} == {
        "zeroshot",
        "finetune",
        "merge",
        "soup",
        "sweep",
        "eval",
        "report",
        "convert",
        "calibrate",
        "card",
        "fisher",
        "predict",
        "rules",
    }


def test_two_outputs_are_two_files(tmp_path):
    """One file for two outputs is refused before it exists; a folder may be shared, but not with a file."""
    (tmp_path / "folder").mkdir()
    require_apart({}, {"--png": tmp_path / "new", "--pdf": tmp_path / "new"}, [])
    with pytest.raises(UsageError, match="two outputs, --csv and --latex"):
        require_apart({"--csv": tmp_path / "x", "--latex": tmp_path / "folder" / ".." / "x"}, {}, [])
    with pytest.raises(UsageError, match="two outputs, --csv and --png"):
        require_apart({"--csv": tmp_path / "x"}, {"--png": tmp_path / "x"}, [])


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices")
def test_a_device_may_be_given_twice():
    """Nothing is replaced in a device."""
    require_apart({"--csv": Path("/dev/null"), "--latex": Path("/dev/null")}, {}, [])

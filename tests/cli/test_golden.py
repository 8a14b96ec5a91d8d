"""The wording of the command line: whole outputs, compared with the files in tests/cli/golden.

Other tests check facts such as exit codes, option names and numbers, so a change of wording changes these files alone.
With the environment variable UPDATE_GOLDEN=1 the files are rewritten; review them like any other change.
"""

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mergekit_wise.cli.app import app

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    "help": ("--help",),
    "merge-help": ("merge", "--help"),
    "sweep-help": ("sweep", "--help"),
    "merge": ("merge", "zs.pt", "ft.safetensors", "-o", "out.safetensors"),
    "merge-without-arguments": ("merge",),
    "diff": ("diff", "zs.pt", "ft.safetensors"),
    "inspect": ("inspect", "ft.safetensors"),
}
MASKS = {
    r"[\d.,]+ [kM]?B, [\d.]+ s, [\d.]+ [kMG]?B/s": "SIZE, SECONDS, RATE",
    r"\b[0-9a-f]{64}\b": "SHA256",
}


def masked(text, folder):
    """The text without what differs between two runs or machines."""
    text = text.replace(str(folder), "FOLDER")
    for pattern, name in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_the_golden_file(name, pair, tmp_path, monkeypatch):
    """Exit code, stdout and stderr in a terminal of 80 columns are those in the golden file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    result = CliRunner().invoke(app, COMMANDS[name], prog_name="wise", env={"COLUMNS": "80"})
    parts = {"stdout": result.stdout, "stderr": result.stderr}
    found = f"$ wise {' '.join(COMMANDS[name])}\nexit code {result.exit_code}\n"
    found += "".join(f"--- {stream}\n{masked(text, tmp_path)}" for stream, text in parts.items() if text)
    found = "".join(f"{line.rstrip()}\n" for line in found.splitlines())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"{path} differs. To accept the output, set UPDATE_GOLDEN=1."


def test_every_golden_file_is_compared():
    """The folder has one file for each command line, and no other."""
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.txt" for name in COMMANDS}

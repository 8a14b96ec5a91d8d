"""What it costs to ask for help, or to merge: nothing is imported that is not used."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "open_clip", "matplotlib", "scipy", "numpy", "sklearn", "PIL"}
PROBE = """
import json, sys
sys.argv = ["wise", *{words!r}]
from mergekit_wise.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""


def modules_after(*words):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=list(words))], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert not code, done.stderr
    return set(modules)


@pytest.mark.parametrize("command", ["", "merge", "sweep", "eval", "inspect", "diff", "demo"])
def test_help_imports_nothing_heavy(command):
    """Neither torch nor open_clip nor matplotlib, nor anything that calculates."""
    assert not modules_after(*[command] * bool(command), "--help") & HEAVY


def test_a_merge_on_the_cpu_needs_no_torch(pair, tmp_path):
    """NumPy is all that it takes; importing torch would take longer than most merges."""
    loaded = modules_after("merge", str(pair[0]), str(pair[1]), "-o", str(tmp_path / "out"))
    assert loaded & HEAVY == {"numpy"}


@pytest.mark.parametrize("command", ["inspect", "diff"])
def test_looking_at_files_needs_no_torch(command, pair):
    """Facts come from headers."""
    words = [str(pair[0])] if command == "inspect" else [str(path) for path in pair]
    assert not modules_after(command, *words) & (HEAVY - {"numpy"})

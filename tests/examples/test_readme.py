"""The table of the examples is complete, and every example has a test."""

import json
import re

import pytest

from tests.examples.conftest import EXAMPLES

NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_in_the_table_with_its_time(name):
    """Its row links to it and has the time that its own text states."""
    rows = [line for line in README.splitlines() if line.startswith(f"| [{name}]({name}) |")]
    assert len(rows) == 1
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "".join(json.loads(text)["cells"][0]["source"])
    (seconds,) = re.findall(r"(\d+)\s+seconds", text)
    assert rows[0].rstrip(" |").endswith(f"{seconds} s")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_run_by_a_test(name):
    """A test module of this folder names it."""
    assert any(f'"{name}"' in path.read_text() for path in EXAMPLES.parent.glob("tests/examples/test_*.py")) or (
        f'"{name}"' in (EXAMPLES.parent / "tests" / "examples" / "conftest.py").read_text()
    )

"""Every option that a message names exists, and in the command that printed it."""

import ast
from pathlib import Path

import pytest

import mergekit_wise
from tests.advised_options import OPTION, OTHERS, commands, unknown_options

PACKAGE = Path(mergekit_wise.__file__).parent


def texts(path: Path):
    """The literal texts of a module that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_option_that_a_module_names_exists(path):
    """No text names an option that no command has. What the commands print is checked wherever a test runs one."""
    known = set().union(*commands().values(), *OTHERS.values())
    named = {option for text in texts(path) for option in OPTION.findall(text)}
    assert named <= known


def test_an_option_of_another_command_is_noticed():
    """The check itself: an option that a command lacks is found, unless the command that has it is named before it."""
    assert unknown_options(["eval", "x.pt"], "Add --alpha 0.5.") == ["--alpha"]
    assert unknown_options(["eval", "x.pt"], "Add --suite digits, or run wise merge with --alpha 0.5.") == []
    assert unknown_options(["merge", "a", "b"], "Use --alpha 0.5 or --suite.") == ["--suite"]
    assert unknown_options(["data", "fetch", "x"], "Use --data.") == []

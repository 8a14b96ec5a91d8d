"""Imports run one way: a room imports only rooms before it in the list."""

import ast
from pathlib import Path

import pytest

import mergekit_wise

ROOMS = (
    "lazy",
    "__init__",
    "errors",
    "signals",
    "progress",
    "wording",
    "launcher",
    "cores",
    "checkpoint",
    "cache",
    "datasets",
    "analysis",
    "results",
    "merging",
    "output_paths",
    "option_types",
    "options",
    "config",
    "models",
    "diagnosis",
    "evaluation",
    "training",
    "report",
    "api",
    "integrations",
    "cli",
    "__main__",
)
# Who alone may import what, and who must not.
ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "open_clip": {"models"},
    "matplotlib": {"report", "datasets"},
    "pandas": {"api"},
    "wandb": {"training"},
}
NEVER = {"torch": {"checkpoint", "datasets", "analysis", "results", "report", "cli"}}
HOUSE = Path(mergekit_wise.__file__).parent


@pytest.fixture(scope="module")
def imports():
    """(file, room, what it imports) for every import in the package, those inside functions included."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [(path, room, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                assert node.module is not None
                deeper = [f"{node.module}.{alias.name}" for alias in node.names]
                found += [(path, room, name) for name in ([node.module] if node.module != "mergekit_wise" else deeper)]
    return found


def test_the_list_names_every_room():
    """Every module and package at the top level has its place in the order."""
    found = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found == set(ROOMS)


def test_imports_run_one_way(imports):
    """Every import is of the same room or of one before it; only the package's front door looks ahead."""
    seen = 0
    for path, room, name in imports:
        if name.split(".")[0] == "mergekit_wise" and room != "__init__":
            seen += 1
            other = name.split(".")[1] if "." in name else "__init__"
            other = other if other in ROOMS else "__init__"
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}"
    assert seen > 50


@pytest.mark.parametrize("library", ONLY)
def test_a_library_is_imported_in_its_rooms_only(library, imports):
    """Each of these libraries is imported in its rooms and in no other."""
    users = {room for _, room, name in imports if name.split(".")[0] == library}
    assert users <= ONLY[library]
    assert users


def test_rooms_without_torch_import_none(imports):
    """These rooms import torch nowhere, not even inside a function."""
    offenders = [(path, name) for path, room, name in imports if room in NEVER["torch"] and name.startswith("torch")]
    assert offenders == []
    assert NEVER["torch"] <= {room for _, room, _ in imports}


@pytest.mark.parametrize("library", ["transformers", "lightning"])
def test_only_the_file_for_a_trainer_imports_it(library, imports):
    """In the integrations, each trainer's library is imported by the file of its name alone."""
    users = {path.stem for path, room, name in imports if room == "integrations" and name.split(".")[0] == library}
    assert users == {library}

"""Packages that import their modules on first use."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mergekit_wise

HOUSE = Path(mergekit_wise.__file__).parent
LAZY = ["mergekit_wise", *(f"mergekit_wise.{path.parent.name}" for path in sorted(HOUSE.glob("*/__init__.py")))]
LAZY = [name for name in LAZY if hasattr(import_module(name), "_NAMES")]


def test_the_packages_that_a_merge_goes_through_are_lazy():
    """Those packages whose names many modules import are among the ones that these tests know."""
    assert {"mergekit_wise", "mergekit_wise.checkpoint", "mergekit_wise.merging", "mergekit_wise.analysis"} <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_a_package_lists_every_name_once(package):
    """What type checkers see, what is imported on first use and `__all__` are the same names, and no module has one."""
    module = import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is None
    }
    loaded = {name: f"{package}.{home}" for home, names in module._NAMES.items() for name in names}
    assert seen == loaded
    assert sorted(loaded) == sorted(set(module.__all__) - {"__version__"})
    assert not {path.stem for path in Path(module.__file__).parent.iterdir()} & set(loaded)


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_there_and_is_listed(package):
    """Every name of a package can be had, and `dir`, which completion reads, lists it; another name is an error."""
    module = import_module(package)
    assert set(module.__all__) <= set(dir(module))
    namespace = {}
    exec(f"from {package} import *", namespace)
    assert set(module.__all__) - {"__version__"} <= set(namespace)
    assert not hasattr(module, "nothing")


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_imports_none_of_its_modules(package):
    """A package alone imports no module of its own, and none of the libraries that those need."""
    code = f"import sys, {package}; print(*(name for name in sys.modules if name.startswith('mergekit_wise')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"mergekit_wise", "mergekit_wise.lazy", package}

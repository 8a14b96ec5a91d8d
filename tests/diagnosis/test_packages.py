"""Which packages are installed, from their metadata."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from mergekit_wise.diagnosis.packages import COMPILED, OPTIONAL, compiled_modules, optional_packages, versions

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
NEEDED = ["torch>=2.7", "numpy>=2.0", 'scikit-learn>=1.5; extra == "demo"']


def found(section):
    return {finding.name: finding for finding in section.findings}


@pytest.mark.parametrize(
    ("version", "level", "command"),
    [
        ("2.7", "", ""),
        ("2.15.0+cpu", "", ""),
        ("2.7.0rc1", "", ""),
        ("2.6.9", "problem", "pip install 'torch>=2.7'"),
        ("1.13", "problem", "pip install 'torch>=2.7'"),
        (None, "error", "pip install 'torch>=2.7'"),
    ],
)
def test_a_version_is_compared_with_the_lowest_one(version, level, command):
    """An older version is a problem, a missing package an error, and the command names the version that is needed."""
    torch = found(versions(NEEDED, lambda name: version if name == "torch" else "9"))["torch"]
    assert (torch.level, torch.command) == (level, command)


def test_packages_of_extras_are_not_required():
    """What only an extra needs is not listed among the required packages."""
    names = found(versions(NEEDED, lambda name: "9"))
    assert {"mergekit_wise", "Python", "torch", "numpy"} <= names.keys()
    assert "scikit-learn" not in names


def test_every_dependency_of_the_project_is_examined():
    """Each requirement of pyproject.toml is listed, and too old just below its bound."""
    names = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    listed = found(versions(PROJECT["dependencies"], lambda name: "0.0.1"))
    assert {name for name, finding in listed.items() if finding.level == "problem"} == names


def test_a_copy_that_pip_did_not_install_is_a_note(monkeypatch):
    """Without metadata of the package the main versions are listed all the same."""
    monkeypatch.setattr("mergekit_wise.diagnosis.packages.requirements", lambda: None)
    names = found(versions(version_of=lambda name: "9"))
    assert names["installation"].level == "note"
    assert names["torch"].value == "9"


@pytest.mark.parametrize("module", COMPILED)
def test_a_missing_compiled_module_is_a_problem(module, monkeypatch):
    """Without it something is slower, which is said with the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    (finding,) = compiled_modules([module]).findings
    assert finding.level == "problem"
    assert finding.text == COMPILED[module][1]
    assert finding.command.startswith("pip install --force-reinstall")


def test_windows_has_no_file_guard():
    """The module that handles a signal of POSIX systems is not missed on Windows."""
    assert {finding.name for finding in compiled_modules(system="Windows").findings} == {"merging", "resizing"}


def test_what_is_optional_is_no_problem():
    """Packages that only some work needs are named with this work and a command, and are not marked."""
    findings = optional_packages(lambda name: None).findings
    assert {finding.name for finding in findings} == set(OPTIONAL)
    assert not any(finding.level for finding in findings)
    assert all(finding.command.startswith("pip install ") for finding in findings)


def test_extras_that_are_advised_exist():
    """The commands name extras that pyproject.toml has, with the packages that they are advised for."""
    advised = {name: re.search(r"\[(\w+)\]", wanted) for name, (_, wanted) in OPTIONAL.items()}
    extras = {name: extra[1] for name, extra in advised.items() if extra}
    assert set(extras) == {"scikit-learn", "pyarrow"}
    for name, extra in extras.items():
        assert any(line.startswith(name) for line in PROJECT["optional-dependencies"][extra])

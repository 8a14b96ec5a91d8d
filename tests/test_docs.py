"""What the documentation shows is what happens."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_shown_command_works(page, demo_home, tmp_path):
    """In the order of the page, in a folder where the demo has run; what it measured is not measured again."""
    shutil.copytree(demo_home / "wise-demo", tmp_path / "wise-demo")
    shutil.copy(tmp_path / "wise-demo" / "results.jsonl", tmp_path)
    for command in commands(page):
        program, *words = shlex.split(command)
        assert program == "wise"
        done = subprocess.run(
            [sys.executable, "-m", "mergekit_wise", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_every_shown_snippet_works(page, demo_home, tmp_path):
    """In the same folder."""
    shutil.copytree(demo_home / "wise-demo", tmp_path / "wise-demo")
    for snippet in blocks(page, "python"):
        done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_make_command_exists():
    """Targets that the pages name are in the Makefile."""
    named = {target for page in PAGES for target in re.findall(r"(?:`|^)make (\w+)", page.read_text(), re.MULTILINE)}
    there = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= there


def test_links_lead_somewhere():
    """Those to files of the project."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_command_reference_is_current():
    """If this fails: make docs."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text(encoding="utf-8") == reference.reference()

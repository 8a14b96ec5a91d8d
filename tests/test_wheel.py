"""What a wheel carries besides Python, and what a package index shows of it."""

import re
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

ROOT = Path(__file__).parent.parent


@pytest.fixture
def distribution(monkeypatch):
    """The project as setup.py and pyproject.toml describe it; nothing is built."""
    monkeypatch.chdir(ROOT)
    made = []
    monkeypatch.setattr("setuptools.setup", lambda **given: made.append(Distribution(given)))
    exec(compile(Path("setup.py").read_text(), str(ROOT / "setup.py"), "exec"), {"__file__": str(ROOT / "setup.py")})
    (found,) = made
    apply_configuration(found, "pyproject.toml")
    return found


def test_the_readme_leads_nowhere_else(distribution):
    """An index has no files beside the readme: it keeps addresses and words, and no link or picture of the project."""
    text = distribution.metadata.long_description
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert len(text) > 0.8 * len((ROOT / "README.md").read_text(encoding="utf-8"))
    for words in ("wise merge wise-demo/zeroshot.safetensors", "Which files can I merge?", "When not this tool"):
        assert words in text
    assert distribution.metadata.long_description_content_type == "text/markdown"


def test_one_wheel_serves_every_python(distribution):
    """The compiled modules use the stable interface of the oldest Python that is supported, and the tag says so."""
    oldest = re.fullmatch(r">=3\.(\d+)", str(distribution.python_requires))[1]
    assert distribution.command_options["bdist_wheel"]["py_limited_api"][1] == f"cp3{oldest}"
    for extension in distribution.ext_modules:
        assert extension.py_limited_api
        assert extension.optional
        (source,) = extension.sources
        assert f"#define Py_LIMITED_API 0x03{int(oldest):02X}0000\n" in (ROOT / source).read_text()


def test_what_is_no_python_is_in_the_wheel(distribution):
    """The marker of types, templates and suites are files of the package, as setuptools reads its configuration."""
    distribution.include_package_data = False  # which reads a manifest that only a build has
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    carried = {f"{package.replace('.', '/')}/{name}" for package, _, _, names in command.data_files for name in names}
    kinds = (".typed", ".j2", ".css", ".js", ".toml", ".txt")
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "mergekit_wise").rglob("*") if path.suffix in kinds}
    assert "mergekit_wise/py.typed" in carried
    assert there <= carried

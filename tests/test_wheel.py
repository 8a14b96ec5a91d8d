"""What a wheel carries besides Python."""

from pathlib import Path

from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

ROOT = Path(__file__).parent.parent


def test_what_is_no_python_is_in_the_wheel(monkeypatch):
    """The marker of types, templates and suites are files of the package, as setuptools reads its configuration."""
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    apply_configuration(distribution, "pyproject.toml")
    distribution.include_package_data = False  # which reads a manifest that only a build has
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    carried = {f"{package.replace('.', '/')}/{name}" for package, _, _, names in command.data_files for name in names}
    kinds = (".typed", ".j2", ".css", ".js", ".toml", ".txt")
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "mergekit_wise").rglob("*") if path.suffix in kinds}
    assert "mergekit_wise/py.typed" in carried
    assert there <= carried

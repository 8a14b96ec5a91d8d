"""Fixtures for many tests: a pair of small checkpoints, and the command line."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Beside each other, test processes are as many as cores; torch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from mergekit_wise.cli.app import app
from tests.advised_options import unknown_options

# Started in the background by a shell, as some CI services do, this process ignores SIGINT, and so would the processes
# that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items):
    """Divide the tests among several processes so that none does what another has done, and all end together.

    Tests that share a fixture run in one process, because every other one would make it again. Groups of tests that
    take long come first, that of the demo before all others, and single short tests last: they fill what time is left.
    """
    groups = {item: _group(item) for item in items}
    slow = {groups[item] or item.nodeid for item in items if item.get_closest_marker("slow")}
    for item, group in groups.items():
        if group:
            item.add_marker(pytest.mark.xdist_group(group))

    def place(item):
        group = groups[item]
        return group != "demo", (group or item.nodeid) not in slow, not group

    items.sort(key=place)


def _group(item):
    """The name of the tests that share a fixture with this one: the demo, or one of its module; empty without any."""
    if "demo_home" in item.fixturenames:
        return "demo"
    scopes = {found[-1].scope for found in item._fixtureinfo.name2fixturedefs.values()}
    return item.module.__name__ if "module" in scopes else ""


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory):
    """No test reads or changes the user's cache, those in other processes and fixtures of whole modules included."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WISE_CACHE", str(folder / "shared"))
        yield folder


@pytest.fixture(autouse=True)
def _empty_cache(_own_caches, monkeypatch):
    """Every test begins with an empty cache."""
    monkeypatch.setenv("WISE_CACHE", str(_own_caches / secrets.token_hex(8)))


@pytest.fixture
def states():
    """A zero-shot and a fine-tuned state dict: changed floats, an equal float tensor, and an integer that differs."""
    generator = torch.Generator().manual_seed(0)
    zeroshot = {
        "layer.0.weight": torch.randn(64, 33, generator=generator),
        "layer.1.weight": torch.randn(7, generator=generator).half(),
        "layer.2.weight": torch.randn(5, 3, generator=generator).bfloat16(),
        "frozen": torch.randn(11, generator=generator),
        "scale": torch.tensor(2.5),
        "steps": torch.tensor(3),
    }
    finetuned = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in zeroshot.items()
        if tensor.is_floating_point()
    }
    return zeroshot, {**finetuned, "frozen": zeroshot["frozen"], "steps": torch.tensor(4)}


@pytest.fixture
def pair(states, tmp_path: Path) -> tuple[Path, Path]:
    """The two states as files: the zero-shot one by torch.save, the fine-tuned one as safetensors."""
    zeroshot, finetuned = tmp_path / "zs.pt", tmp_path / "ft.safetensors"
    torch.save(states[0], zeroshot)
    save_file(states[1], finetuned)
    return zeroshot, finetuned


@pytest.fixture
def wise():
    """Run a command line and return its result, with stdout and stderr apart.

    Every option that the command names must be one that it has; see `unknown_options`.
    """

    def run(*words):
        given = [str(word) for word in words]
        result = CliRunner().invoke(app, given)
        assert not unknown_options(given, result.output), result.output
        return result

    return run


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory) -> Path:
    """A folder in which `wise demo` has run; its stdout is in ``printed.txt``."""
    home = tmp_path_factory.mktemp("home")
    if "PYTEST_XDIST_WORKER" in os.environ:  # the parent folder is that of all test processes of this run
        (home.parent.parent / "demo").mkdir()  # fails in a second one: then the groups above are not kept together
    done = subprocess.run(
        [sys.executable, "-m", "mergekit_wise", "demo", "wise-demo"], cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (home / "printed.txt").write_text(done.stdout)
    return home

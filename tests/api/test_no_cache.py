"""With --no-cache nothing is kept, whatever opens a data set: listings of tars on servers are no exception."""

from contextlib import suppress
from pathlib import Path

import pytest

from mergekit_wise.api.calibrate import dataset_of
from mergekit_wise.api.greedy_soup import greedy
from mergekit_wise.api.rules import rules
from mergekit_wise.api.sweep import _require_set
from mergekit_wise.api.zeroshot import prompts_of
from mergekit_wise.cache import Cache
from mergekit_wise.errors import WiseError
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.evaluation.measure import _open_suite
from mergekit_wise.evaluation.recalibration import open_recalibration
from mergekit_wise.option_types import run
from mergekit_wise.options import (
    CalibrateOptions,
    EvalOptions,
    FisherOptions,
    RulesOptions,
    SoupOptions,
    SweepOptions,
    ZeroshotOptions,
)
from tests.datasets.test_remote import CLASSES, Disk, Handler, tar_of
from tests.hub_server import serving

OUTPUT = Path("out.safetensors")


@pytest.fixture
def address(monkeypatch):
    """The address of a tar with three classes."""
    monkeypatch.setenv("no_proxy", "*")
    files = {"insects/test/0.tar": tar_of(range(6)), "insects/classnames.txt": "\n".join(CLASSES).encode()}
    with serving(Disk(files), Handler) as disk:
        yield f"{disk.url}/insects/test/0.tar"


def evaluating(address, cache):
    _open_suite(EvalOptions("ft", address, cache=cache), ALONE)


def choosing(address, cache):
    _require_set(address, SweepOptions("zs", "ft", suite="digits", select_on=address, cache=cache))


def recalibrating(address, cache):
    open_recalibration(SweepOptions("zs", "ft", suite="digits", recalibrate=address, cache=cache), None, ())


def calibrating(address, cache):
    dataset_of(CalibrateOptions("ft", OUTPUT, on=address, cache=cache))


def weighing(address, cache):
    dataset_of(FisherOptions("ft", OUTPUT, on=address, cache=cache))


def naming(address, cache):
    prompts_of(ZeroshotOptions("zs", OUTPUT, dataset=address, cache=cache))


def comparing(address, cache):
    run(rules, RulesOptions("zs", "ft", suite=address, plot=Path("plot.png"), cache=cache))


def averaging(address, cache):
    greedy(SoupOptions("zs", ("a", "b"), OUTPUT, how="greedy", select_on=address, cache=cache))


@pytest.mark.parametrize(
    "opening", [evaluating, choosing, recalibrating, calibrating, weighing, naming, comparing, averaging]
)
def test_listings_are_kept_unless_nothing_is_to_be(opening, address, tmp_path, monkeypatch):
    """Each command lists the tar: with a cache, for later runs; without one, there is not even the cache's folder."""
    monkeypatch.chdir(tmp_path)
    for keep, kinds in ((False, []), (True, ["listings"])):
        monkeypatch.setenv("WISE_CACHE", str(tmp_path / f"cache-{keep}"))
        with suppress(WiseError, AttributeError):  # there are no models, which are opened later
            opening(address, keep)
        assert [entry.kind for entry in Cache.open().entries()] == kinds
        assert (tmp_path / f"cache-{keep}").exists() == keep

"""Several outputs from one pass over the two checkpoints."""

import os
import threading
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge, merge_each
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError
from mergekit_wise.merging import Mixer, Rules, Sink, make_plan, open_backend
from mergekit_wise.merging.backends import Backend, mix_on_cpu
from mergekit_wise.merging.stream import stream
from mergekit_wise.models.pairing import match
from mergekit_wise.options import MergeOptions
from mergekit_wise.progress import silent


@pytest.mark.parametrize("alphas", [(0.25, 0.5), (0.0, 0.25, 0.75, 1.0)])
def test_two_tensors_are_compared_once_for_all_outputs(alphas, pair, states):
    """However many alphas mix two tensors, their bytes are compared once."""
    asked = Counter()

    class CountingMixer(Mixer):
        def same(self, name, start, stop):
            asked[name, start] += 1
            return super().same(name, start, stop)

    matched = match(*map(open_checkpoint, pair))
    sinks = [Sink(make_plan(matched, Rules(alpha)), lambda *_: None) for alpha in alphas]
    stream(CountingMixer(matched, open_backend("cpu")), sinks, silent)
    assert set(asked.values()) == {1}
    assert {name for name, _ in asked} == {name for name, a in states[0].items() if a.dtype == states[1][name].dtype}


COUNT = 10_000
FIRST_OF_A_BLOCK = 3 * 512


@pytest.mark.parametrize("form", ["safetensors", "pt"])
@pytest.mark.parametrize("place", [0, FIRST_OF_A_BLOCK, COUNT - 1])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_tensor_that_differs_in_one_element_is_mixed_as_a_whole(place, form, threads, tmp_path, monkeypatch):
    """Mixing rounds equal elements, too, so that what was copied before the difference was found is written again."""
    shared = torch.randn(COUNT, generator=torch.Generator().manual_seed(0))
    for number, name in enumerate(("zs", "ft")):
        moved = shared.clone()
        moved[place] += number
        save_file({"moved": moved, "equal": shared.half(), "count": (1000 * moved).long()}, tmp_path / name)
    backend = Backend(mix_on_cpu, threads, block=512, chunk=2048)
    monkeypatch.setattr("mergekit_wise.api.merge.open_backend", lambda *_: backend)
    seen = []
    output = tmp_path / f"out.{form}"
    report = merge(tmp_path / "zs", tmp_path / "ft", output, alpha=0.3, progress=lambda *call: seen.append(call[1]))
    out = load_file(output) if form == "safetensors" else torch.load(output)
    wanted = (1 - 0.3) * shared + 0.3 * moved
    assert (wanted != shared).sum() > COUNT / 20
    assert torch.equal(out["moved"], wanted)
    assert torch.equal(out["equal"], shared.half())
    assert torch.equal(out["count"], (1000 * moved).long())
    assert {o.name: o.source for o in report.outcomes} == {"moved": "mixed", "equal": "equal", "count": "finetuned"}
    norm = (moved - shared).double().norm() / shared.double().norm()
    assert report.distance == pytest.approx(norm.item(), rel=1e-5)
    assert seen == sorted(seen)
    assert seen[-1] == sum(tensor.nbytes for tensor in out.values())


def test_a_difference_behind_a_piece_that_was_copied_is_within_the_tolerance_or_not(tmp_path, monkeypatch):
    """With a tolerance for frozen tensors the whole tensor decides, whichever piece was compared first."""
    shared = torch.ones(COUNT)
    for name, last in (("zs", 1.0), ("near", 1.001), ("far", 2.0)):
        save_file({"w": torch.cat([shared, torch.tensor([last])])}, tmp_path / name)
    backend = Backend(mix_on_cpu, 2, block=512, chunk=2048)
    monkeypatch.setattr("mergekit_wise.api.merge.open_backend", lambda *_: backend)
    for name, last, source in (("near", 1.0, "zeroshot"), ("far", 1.5, "mixed")):
        report = merge(tmp_path / "zs", tmp_path / name, tmp_path / "out", frozen_tolerance=0.01)
        assert [outcome.source for outcome in report.outcomes] == [source]
        assert load_file(tmp_path / "out")["w"].tolist() == [1.0] * COUNT + [last]


def test_the_main_thread_compares_nothing(tmp_path):
    """Large tensors are compared by the threads that write them, all at once."""
    for name in ("zs", "ft"):
        save_file({f"w{i}": torch.ones(COUNT) for i in range(4)}, tmp_path / name)
    threads = set()

    class WatchedMixer(Mixer):
        def same(self, name, start, stop):
            threads.add(threading.current_thread())
            return super().same(name, start, stop)

    matched = match(open_checkpoint(tmp_path / "zs"), open_checkpoint(tmp_path / "ft"))
    sink = Sink(make_plan(matched, Rules(0.5)), lambda *_: None)
    ((outcome, *_),) = stream(WatchedMixer(matched, open_backend("cpu")), [sink], silent)
    assert outcome.source == "equal"
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("alphas", [(0.25, 0.5), (0.0, 0.25, 0.75, 1.0)])
def test_the_outputs_of_one_pass_are_those_of_single_merges(alphas, pair, tmp_path):
    """Every file has the bytes that a merge with its alpha alone writes."""
    merge_each(MergeOptions(*pair, tmp_path / "{alpha}.safetensors"), alphas)
    for alpha in alphas:
        merge(*pair, tmp_path / "one", alpha=alpha)
        assert (tmp_path / f"{alpha:g}.safetensors").read_bytes() == (tmp_path / "one").read_bytes()


def test_a_file_of_small_tensors_that_becomes_shorter_is_an_error(tmp_path):
    """Its last bytes would be read as zeros."""
    for name in ("zs", "ft"):
        save_file({f"w{i:03}": torch.ones(8) for i in range(300)}, tmp_path / name)
    matched = match(open_checkpoint(tmp_path / "zs"), open_checkpoint(tmp_path / "ft"))
    plan = make_plan(matched, Rules(0.5))
    os.truncate(tmp_path / "ft", (tmp_path / "ft").stat().st_size - 32)
    with pytest.raises(CheckpointError, match="became shorter"):
        stream(Mixer(matched, open_backend("cpu")), [Sink(plan, lambda *_: None)], silent)

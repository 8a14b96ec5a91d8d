"""Several outputs from one pass over the two checkpoints."""

import os
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.api.merge import merge, merge_each
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError
from mergekit_wise.merging import Mixer, Rules, Sink, make_plan, open_backend
from mergekit_wise.merging.stream import stream
from mergekit_wise.models.pairing import match
from mergekit_wise.options import MergeOptions
from mergekit_wise.progress import silent


@pytest.mark.parametrize("alphas", [(0.25, 0.5), (0.0, 0.25, 0.75, 1.0)])
def test_two_tensors_are_compared_once_for_all_outputs(alphas, pair, states):
    """However many alphas mix two tensors, their bytes are compared once."""
    asked = Counter()

    class CountingMixer(Mixer):
        def source(self, plan):
            asked[plan.info.name, plan.action] += 1
            return super().source(plan)

    matched = match(*map(open_checkpoint, pair))
    sinks = [Sink(make_plan(matched, Rules(alpha)), lambda *_: None) for alpha in alphas]
    stream(CountingMixer(matched, open_backend("cpu")), sinks, silent)
    assert set(asked.values()) == {1}
    assert {name for name, _ in asked} == states[0].keys()


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

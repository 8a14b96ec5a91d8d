"""Several outputs from one reading."""

from collections import Counter

import pytest

from mergekit_wise.api.merge import merge, merge_each
from mergekit_wise.merging import mixing
from mergekit_wise.options import MergeOptions


@pytest.mark.parametrize("alphas", [(0.25, 0.5), (0.0, 0.25, 0.75, 1.0)])
def test_two_tensors_are_compared_once_for_all_outputs(alphas, pair, states, tmp_path, monkeypatch):
    """However many alphas mix them; the files are those of one merge after the other."""
    asked, find_source = Counter(), mixing.find_source

    def counted(pair, step, block):
        asked[step.info.name, step.action] += 1
        return find_source(pair, step, block)

    monkeypatch.setattr(mixing, "find_source", counted)
    merge_each(MergeOptions(*pair, tmp_path / "{alpha}.safetensors"), alphas)
    assert set(asked.values()) == {1}
    assert {name for name, _ in asked} == states[0].keys()
    for alpha in alphas:
        merge(*pair, tmp_path / "one", alpha=alpha)
        assert (tmp_path / f"{alpha:g}.safetensors").read_bytes() == (tmp_path / "one").read_bytes()

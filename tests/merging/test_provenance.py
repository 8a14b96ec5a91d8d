"""Tests of the provenance in a merged file, read back."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import BY_TORCH, open_checkpoint
from mergekit_wise.errors import CheckpointError
from mergekit_wise.merging import Rules, make_plan
from mergekit_wise.merging.provenance import KEY, describe, read_origin, read_rules
from mergekit_wise.models.pairing import match

EVERY = Rules(
    alpha=1.5,
    alpha_for=(("visual.*", 0.25), ("*.bias", -1.0)),
    depth=(0.1, 0.9),
    keep=(("zeroshot", "text.*"), ("finetuned", "head.*")),
    only=("a", "b*"),
    dtype=BY_TORCH["bfloat16"],
    extrapolate=True,
)


def saying(tmp_path, text):
    """A checkpoint with this text for its provenance; None for without."""
    save_file({"w": torch.ones(1)}, tmp_path / "x", None if text is None else {KEY: text})
    return open_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("rules", [EVERY, Rules(alpha=0.3, extrapolate=True)], ids=["every rule", "none"])
def test_rules_come_back_as_they_were(rules, tmp_path):
    """Rules survive being written to the metadata and read again."""
    source = saying(tmp_path, None)
    pair = match(source, source)
    metadata, _ = describe(pair, make_plan(pair, Rules()), rules)
    assert read_rules(read_origin(saying(tmp_path, metadata[KEY]))) == rules


@pytest.mark.parametrize(
    "text", [None, "", "{", "[" * 99_999, "null", "[1]", '"merged"'], ids=lambda text: str(text)[:9]
)
def test_a_file_that_was_not_merged_here_has_no_origin(text, tmp_path):
    """Other content of the metadata entry is not a provenance."""
    assert read_origin(saying(tmp_path, text)) is None


@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"alpha": "half"},
        {"alpha": 0.5, "rules": [1]},
        {"alpha": 0.5, "rules": {"depth": [0.1]}},
        {"alpha": 0.5, "rules": {"only": 5}},
        {"alpha": 0.5, "rules": {"alpha_for": [["*"]]}},
        {"alpha": 0.5, "rules": {"keep": [["names", "*"]]}},
        {"alpha": 0.5, "rules": {"keep": [[[], "*"]]}},
        {"alpha": 0.5, "rules": {"dtype": "float99"}},
    ],
    ids=json.dumps,
)
def test_rules_that_are_none_are_refused(origin):
    """Any content of a file gives a CheckpointError, never another error."""
    with pytest.raises(CheckpointError, match="the provenance of the file cannot be understood"):
        read_rules(origin)

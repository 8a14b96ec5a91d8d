"""Fisher information that matches a pair or does not; ``api/test_merge_rules.py`` merges with it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.fisher import open_fishers
from mergekit_wise.models.pairing import match

WEIGHTS = {"a.w": torch.ones(3), "b.w": torch.ones(2, 2)}


def opened(tmp_path, first, second):
    for name, state in (("zs", WEIGHTS), ("ft", WEIGHTS), ("f0", first), ("f1", second)):
        save_file(state, tmp_path / name)
    zeroshot, finetuned, *fishers = (open_checkpoint(tmp_path / name) for name in ("zs", "ft", "f0", "f1"))
    return open_fishers(match(zeroshot, finetuned), *fishers, 0.25)


def test_values_below_the_floor_are_the_floor(tmp_path):
    """Values are found under the weights' names despite a prefix; tensors without information have none."""
    first, second = {"module.b.w": torch.tensor([0.0, 0.5, 0.125, 1])}, {"b.w": torch.tensor([[2.0, 0.0], [0.0, 3.0]])}
    first["module.b.w"] = first["module.b.w"].reshape(2, 2)
    fishers = opened(tmp_path, first, second)
    ours, theirs = fishers.read("b.w", 1, 4, np.float64)
    assert (ours.tolist(), theirs.tolist()) == ([0.5, 0.25, 1], [0.25, 0.25, 3])
    assert fishers.read("a.w", 0, 3, np.float32) is None


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"a.w": torch.ones(3)}, {"b.w": torch.ones(2, 2)}, r"lack Fisher information on one side.*\n  a\.w\n  b\.w"),
        ({"a.w": torch.ones(4)}, {"a.w": torch.ones(4)}, r"a different shape than the weights:\n  a\.w"),
        ({"c.w": torch.ones(3)}, {"c.w": torch.ones(3)}, "f0: holds no Fisher information"),
    ],
    ids=["one side", "shape", "other names"],
)
def test_information_that_does_not_match_the_pair_is_refused(first, second, message, tmp_path):
    """Fisher information that does not match the pair is an error that names all wrong tensors."""
    with pytest.raises(MismatchError, match=message):
        opened(tmp_path, first, second)


@pytest.mark.parametrize(("made_of", "refused"), [("ft", True), ("zs", False), ("elsewhere", False), (None, False)])
def test_files_in_the_wrong_order_are_refused(made_of, refused, tmp_path):
    """Exchanged files fit in every shape; their records tell, and files of other tools have none."""
    record = {} if made_of is None else {"mergekit_wise_fisher": json.dumps({"checkpoint": {"name": made_of}})}
    for name in ("zs", "ft", "f1"):
        save_file(WEIGHTS, tmp_path / name)
    save_file(WEIGHTS, tmp_path / "f0", record)
    zeroshot, finetuned, *fishers = (open_checkpoint(tmp_path / name) for name in ("zs", "ft", "f0", "f1"))
    if refused:
        with pytest.raises(MismatchError, match="f0: is the Fisher information of ft, and was given for zs"):
            open_fishers(match(zeroshot, finetuned), *fishers, 0.25)
    else:
        assert open_fishers(match(zeroshot, finetuned), *fishers, 0.25).read("a.w", 0, 3, np.float32) is not None

"""Two checkpoints that fit, or one error with everything in which they do not."""

import pytest
import torch

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging import Rules, make_plan, match
from mergekit_wise.wording import fold_names


def checkpoints(tmp_path, a, b):
    torch.save(a, tmp_path / "zs.pt")
    torch.save(b, tmp_path / "ft.pt")
    return open_checkpoint(tmp_path / "zs.pt"), open_checkpoint(tmp_path / "ft.pt")


ONE = torch.ones(1)


def test_all_differences_are_reported_at_once(tmp_path):
    """Names on either side and shapes, grouped, in one error."""
    a = {"same": ONE, "head": torch.ones(2, 3), "old": ONE, **{f"a.{i}.w": ONE for i in range(12)}}
    b = {"same": ONE, "head": torch.ones(3, 2), "new": ONE}
    with pytest.raises(MismatchError) as caught:
        match(*checkpoints(tmp_path, a, b))
    text = str(caught.value)
    for part in ("only in zs.pt (13)", "a.{0-11}.w", "old", "only in ft.pt (1)", "new", "head: [2, 3] and [3, 2]"):
        assert part in text
    assert "\n    same" not in text


def test_shapes_that_broadcast_are_refused(tmp_path):
    """Nothing broadcasts."""
    with pytest.raises(MismatchError, match="of different shape"):
        match(*checkpoints(tmp_path, {"w": torch.ones(3, 1)}, {"w": torch.ones(3, 3)}))


@pytest.mark.parametrize("swapped", [False, True])
def test_one_prefix_that_one_side_has_throughout_is_taken_off(swapped, tmp_path):
    """On either side, and it is told."""
    bare, prefixed = {"a": ONE, "b.c": ONE}, {"visual.a": ONE, "visual.b.c": ONE}
    sides = (prefixed, bare) if swapped else (bare, prefixed)
    pair = match(*checkpoints(tmp_path, *sides))
    assert set(pair.names) == {"a", "b.c"}
    changed = pair.zeroshot if swapped else pair.finetuned
    assert changed.notes == ("removed prefix 'visual.' from all tensor names",)


def test_dtypes_that_cannot_be_mixed_are_listed_by_name(tmp_path):
    """All of them, in one error."""
    a = {"x": ONE, "y": torch.ones(1, dtype=torch.int64), "z": torch.ones(1, dtype=torch.int32)}
    b = {"x": ONE, "y": ONE, "z": torch.ones(1, dtype=torch.int64)}
    with pytest.raises(MismatchError, match="y: int64 and float32\n  z: int32 and int64"):
        make_plan(match(*checkpoints(tmp_path, a, b)), Rules())


def test_folding_loses_no_name():
    """Runs, gaps, other endings, numbers with leading zeros, and names without a number."""
    names = ["b.0.w", "b.1.w", "b.2.w", "b.5.w", "b.0.v", "plain", "b.007.w"]
    assert fold_names(names) == ["b.{0-2,5}.w", "b.0.v", "plain", "b.007.w"]

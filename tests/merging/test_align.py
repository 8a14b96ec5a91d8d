"""Names that differ by what wraps them."""

import pytest
import torch

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging import Rules, match

TOWER = ("conv1.weight", "ln_post.weight", "positional_embedding", "transformer.resblocks.0.attn.in_proj_weight")
TEXT = ("positional_embedding", "transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight")
FULL = (*(f"visual.{name}" for name in TOWER), *TEXT)
AUTHORS = (*(f"image_encoder.model.visual.{name}" for name in TOWER), "classification_head.weight")


def matched(tmp_path, a, b, **rules):
    for file, names in (("zs", a), ("ft", b)):
        torch.save({name: torch.ones(2) for name in names}, tmp_path / file)
    return match(open_checkpoint(tmp_path / "zs"), open_checkpoint(tmp_path / "ft"), Rules(**rules))


def test_an_image_tower_alone_fits_into_a_full_model(tmp_path):
    """``visual.`` is put before its names; taking it off would mix up the two towers."""
    pair = matched(tmp_path, FULL, TOWER, keep=tuple(("zeroshot", name) for name in TEXT))
    assert set(pair.names) == set(FULL)
    assert "put 'visual.' before every name" in pair.finetuned.notes


def test_the_authors_classifier_fits_open_clips_model(tmp_path):
    """``image_encoder.model.`` is taken off; the text tower and the head are on one side each, and settled by rules."""
    keep = (*(("zeroshot", name) for name in TEXT), ("finetuned", "classification_head.*"))
    pair = matched(tmp_path, FULL, AUTHORS, keep=keep)
    assert set(pair.names) == {*FULL, "classification_head.weight"}
    assert "'image_encoder.model.'" in pair.finetuned.notes[0]


def test_a_head_on_one_side_stops_with_the_option_that_resolves_it(tmp_path):
    """And that option does."""
    names, head = [f"visual.{name}" for name in TOWER], ["head.weight", "head.bias"]
    with pytest.raises(MismatchError, match=r"--keep ft:'head\.\*'"):
        matched(tmp_path, names, [*names, *head])
    assert len(matched(tmp_path, names, [*names, *head], keep=(("finetuned", "head.*"),)).names) == 6


def test_only_restricts(tmp_path):
    """What is not named need not fit."""
    pair = matched(tmp_path, FULL, [*FULL, "extra"], only=("visual.*",))
    assert set(pair.names) == {f"visual.{name}" for name in TOWER}


def test_a_prefix_that_would_make_two_names_one_is_left_alone(tmp_path):
    """Both would be called ``a.w`` without it."""
    with pytest.raises(MismatchError, match=r"only in ft \(3\):\n    x\.a\.w\n    x\.b\.w\n    x\.c\.w\n"):
        matched(tmp_path, ["a.w", "b.w", "c.w", "d.w"], ["x.a.w", "x.b.w", "x.c.w", "a.w"])


def test_names_that_happen_to_end_alike_are_left_alone(tmp_path):
    """One name in common is no reason to rename."""
    with pytest.raises(MismatchError, match="only in zs"):
        matched(tmp_path, ["a.w", "b.w", "c.w"], ["x.a.w", "a.w", "b.w"])

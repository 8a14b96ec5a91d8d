"""Pairing two checkpoints by names and shapes, with names that differ by a prefix."""

import pytest
import torch

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging import Rules, make_plan, parse_naming, renamed
from mergekit_wise.models.pairing import match


def checkpoints(tmp_path, a, b):
    torch.save(a, tmp_path / "zs.pt")
    torch.save(b, tmp_path / "ft.pt")
    return open_checkpoint(tmp_path / "zs.pt"), open_checkpoint(tmp_path / "ft.pt")


ONE = torch.ones(1)


def test_all_differences_are_reported_at_once(tmp_path):
    """One error lists the names on either side and the shapes, grouped."""
    a = {"same": ONE, "head": torch.ones(2, 3), "old": ONE, **{f"a.{i}.w": ONE for i in range(12)}}
    b = {"same": ONE, "head": torch.ones(3, 2), "new": ONE}
    with pytest.raises(MismatchError) as caught:
        match(*checkpoints(tmp_path, a, b))
    text = str(caught.value)
    for part in ("only in zs.pt (13)", "a.{0..11}.w", "old", "only in ft.pt (1)", "new", "head: [2, 3] and [3, 2]"):
        assert part in text
    assert "\n    same" not in text


def test_shapes_that_broadcast_are_refused(tmp_path):
    """Shapes that could be broadcast are refused, because tensors must have equal shapes."""
    with pytest.raises(MismatchError, match="of different shape"):
        match(*checkpoints(tmp_path, {"w": torch.ones(3, 1)}, {"w": torch.ones(3, 3)}))


@pytest.mark.parametrize("swapped", [False, True])
def test_one_prefix_that_one_side_has_throughout_is_taken_off(swapped, tmp_path):
    """The prefix is removed from either side, and a note says so."""
    bare, prefixed = {"a": ONE, "b.c": ONE}, {"visual.a": ONE, "visual.b.c": ONE}
    sides = (prefixed, bare) if swapped else (bare, prefixed)
    pair = match(*checkpoints(tmp_path, *sides))
    assert set(pair.names) == {"a", "b.c"}
    changed = pair.zeroshot if swapped else pair.finetuned
    assert changed.notes == ("removed prefix 'visual.' from all tensor names",)


def test_dtypes_that_cannot_be_mixed_are_listed_by_name(tmp_path):
    """One error lists all tensors whose dtypes cannot be mixed."""
    a = {"x": ONE, "y": torch.ones(1, dtype=torch.int64), "z": torch.ones(1, dtype=torch.int32)}
    b = {"x": ONE, "y": ONE, "z": torch.ones(1, dtype=torch.int64)}
    with pytest.raises(MismatchError, match="y: int64 and float32\n  z: int32 and int64"):
        make_plan(match(*checkpoints(tmp_path, a, b)), Rules())


TOWER = ("conv1.weight", "ln_post.weight", "positional_embedding", "transformer.resblocks.0.attn.in_proj_weight")
TEXT = ("positional_embedding", "transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight")
FULL = (*(f"visual.{name}" for name in TOWER), *TEXT)
AUTHORS = (*(f"image_encoder.model.visual.{name}" for name in TOWER), "classification_head.weight")


def matched(tmp_path, a, b, **rules):
    for file, names in (("zs", a), ("ft", b)):
        torch.save({name: torch.ones(2) for name in names}, tmp_path / file)
    return match(open_checkpoint(tmp_path / "zs"), open_checkpoint(tmp_path / "ft"), Rules(**rules))


def test_an_image_tower_alone_fits_into_a_full_model(tmp_path):
    """``visual.`` is added to its names; removing it would mix up the two encoders."""
    pair = matched(tmp_path, FULL, TOWER, keep=tuple(("zeroshot", name) for name in TEXT))
    assert set(pair.names) == set(FULL)
    assert "added prefix 'visual.' to all tensor names" in pair.finetuned.notes


def test_the_authors_classifier_fits_open_clips_model(tmp_path):
    """``image_encoder.model.`` is removed, and rules settle the text encoder and the head."""
    keep = (*(("zeroshot", name) for name in TEXT), ("finetuned", "classification_head.*"))
    pair = matched(tmp_path, FULL, AUTHORS, keep=keep)
    assert set(pair.names) == {*FULL, "classification_head.weight"}
    assert "'image_encoder.model.'" in pair.finetuned.notes[0]


def test_a_head_on_one_side_stops_with_the_option_that_resolves_it(tmp_path):
    """The option that the error names resolves the mismatch."""
    names, head = [f"visual.{name}" for name in TOWER], ["head.weight", "head.bias"]
    with pytest.raises(MismatchError, match=r"--keep 'ft:head\.\*'"):
        matched(tmp_path, names, [*names, *head])
    assert len(matched(tmp_path, names, [*names, *head], keep=(("finetuned", "head.*"),)).names) == 6


def test_only_ignores_the_mismatches_of_other_tensors(tmp_path):
    """With `only`, tensors that are not written need not match."""
    pair = matched(tmp_path, FULL, [*FULL, "extra"], only=("visual.*",))
    assert set(pair.names) == {f"visual.{name}" for name in TOWER}


def test_a_prefix_that_would_make_two_names_one_is_left_alone(tmp_path):
    """Two tensors would have the name ``a.w`` without it."""
    with pytest.raises(MismatchError, match=r"only in ft \(3\):\n    x\.a\.w\n    x\.b\.w\n    x\.c\.w"):
        matched(tmp_path, ["a.w", "b.w", "c.w", "d.w"], ["x.a.w", "x.b.w", "x.c.w", "a.w"])


def test_names_that_happen_to_end_alike_are_left_alone(tmp_path):
    """One name in common does not cause renaming."""
    with pytest.raises(MismatchError, match="only in zs"):
        matched(tmp_path, ["a.w", "b.w", "c.w"], ["x.a.w", "a.w", "b.w"])


@pytest.mark.parametrize("order", [("teacher", "student"), ("student", "teacher")])
def test_two_networks_that_fit_equally_well_are_refused(order, tmp_path):
    """The order of the names does not decide; the option in the message does."""
    two = {f"{part}.{name}": ONE for part in order for name in ("a.w", "b.w", "c.w")}
    sides = checkpoints(tmp_path, dict.fromkeys(("a.w", "b.w", "c.w"), ONE), two)
    with pytest.raises(MismatchError, match=f"--rename ft:{order[0]}.= or --rename ft:{order[1]}.="):
        match(*sides)
    chosen = renamed(sides[1], [parse_naming(None, ["ft:student.="]).rename[0]])
    pair = match(sides[0], chosen, Rules(only=("?.w",)))
    assert set(pair.names) == {"a.w", "b.w", "c.w"}

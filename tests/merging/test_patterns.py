"""Patterns for options: they match exactly the names that they are to match, and are few."""

import random
from fnmatch import fnmatchcase

import pytest

from mergekit_wise.merging.patterns import choose_patterns

BATCH_NORM = [f"layer{i}.bn.{part}" for i in range(53) for part in ("weight", "bias", "running_mean")]
BLOCKS = [f"visual.blocks.{i}.{part}" for i in range(12) for part in ("attn.weight", "mlp.weight", "mlp.bias")]


@pytest.mark.parametrize(
    ("wanted", "others", "patterns"),
    [
        ([f"layer{i}.bn.num_batches_tracked" for i in range(53)], BATCH_NORM, ["*.num_batches_tracked"]),
        ([f"text.{i}.{part}" for i in range(9) for part in "ab"], BLOCKS, ["text.*"]),
        ([f"visual.blocks.{i}.adapter.{part}" for i in range(12) for part in ("up", "down")], BLOCKS, ["*.adapter.*"]),
        (
            [f"visual.blocks.{i}.mlp.{part}" for i in range(12, 24) for part in ("weight", "bias")],
            BLOCKS,
            ["visual.blocks.1[2-9].*", "visual.blocks.2[0-3].*"],
        ),
        (["head.weight", "head.bias", "scale"], ["a.scale", "a.head.weight"], ["head.*", "scale"]),
        (["visual.a.bias", "visual.b.bias"], ["visual.a.weight", "text.a.bias"], ["visual.*.bias"]),
        (["a[0].w*"], ["a0.w", "a[0].w"], ["a[[]0].w[*]"]),
        (["a", "b.c"], [], ["*"]),
        ([], ["a"], []),
    ],
)
def test_few_patterns_are_found(wanted, others, patterns):
    """Whole modules, endings, parts in the middle and runs of numbers each need one pattern or two."""
    assert choose_patterns(wanted, others) == patterns


@pytest.mark.parametrize("seed", range(8))
def test_patterns_match_what_is_wanted_and_nothing_else(seed):
    """For random names, odd ones among them, the patterns match every wanted name and no other name."""
    rng = random.Random(seed)
    parts = ("a", "b", "bias", "1", "2", "12", "layer2", "c*", "x[1]", "?", "", "[!a]", "007")
    for _ in range(200):
        names = list({".".join(rng.choices(parts, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 40))})
        wanted = names[: rng.randint(0, len(names))]
        patterns = choose_patterns(wanted, names[len(wanted) :])
        assert {name for name in names if any(fnmatchcase(name, each) for each in patterns)} == set(wanted)
        assert len(patterns) <= len(wanted)

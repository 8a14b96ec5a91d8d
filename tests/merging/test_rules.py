"""Tests of rules and alphas, and of their text forms."""

import pytest

from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Rules, check_alpha, parse_alphas
from mergekit_wise.merging.rules import parse_alpha_for, parse_depth, parse_dtype, parse_keep


def test_the_first_pattern_that_matches_wins():
    """Names that match no pattern get the general alpha."""
    rules = Rules(0.5, alpha_for=(("visual.*.bias", 0.1), ("visual.*", 0.2), ("*.bias", 0.3)))
    names = ["visual.conv.bias", "visual.conv.weight", "text.bias", "text.weight"]
    assert list(rules.alphas(names).values()) == [0.1, 0.2, 0.3, 0.5]


def test_depth_rises_linearly_from_the_first_block_to_the_last():
    """LiNeS applies to each encoder alone, in numeric order; tensors outside blocks get the first alpha."""
    names = [f"visual.transformer.resblocks.{i}.ln.{part}" for part in ("weight", "bias") for i in range(11)]
    names += [f"transformer.resblocks.{i}.ln.weight" for i in range(3)] + ["visual.conv1.weight", "ln_final.bias"]
    alphas = Rules(depth=(0.0, 1.0)).alphas(names)
    assert [alphas[name] for name in names[:22]] == pytest.approx([i / 10 for i in range(11)] * 2)
    assert [alphas[name] for name in names[22:]] == [0.0, 0.5, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "names",
    [
        ["visual.layer1.0.w", "visual.layer1.1.w", "visual.layer2.0.w", "visual.layer4.0.w"],
        [f"vision_model.encoder.layers.{i}.w" for i in range(4)],
        [f"visual.trunk.blocks.{i}.w" for i in range(4)],
        [
            "trunk.stages.0.blocks.0.w",
            "trunk.stages.0.blocks.1.w",
            "trunk.stages.1.blocks.0.w",
            "trunk.stages.2.blocks.0.w",
        ],
    ],
    ids=["ResNet", "transformers", "timm ViT", "timm ConvNeXt"],
)
def test_depth_knows_the_blocks_of_usual_models(names):
    """The stages of a ResNet count as one sequence."""
    assert list(Rules(depth=(0.2, 0.8)).alphas(names).values()) == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_pattern_comes_before_depth():
    """A pattern that names a tensor has priority over its depth."""
    rules = Rules(depth=(0.0, 1.0), alpha_for=(("*.1.*", 0.9),))
    assert list(rules.alphas(["blocks.0.w", "blocks.1.w", "blocks.2.w"]).values()) == [0.0, 0.9, 1.0]


@pytest.mark.parametrize(
    ("rules", "given"),
    [
        ({"alpha": 1.5}, "--alpha 1.5"),
        ({"alpha_for": (("*.a", 0.5), ("*", -1.0))}, r"--alpha-for \*=-1"),
        ({"depth": (0.0, 2.0)}, "--depth-alpha 0:2"),
    ],
)
def test_alphas_outside_0_and_1_need_extrapolation(rules, given):
    """An alpha outside [0, 1] in any rule is an error that names the option, unless extrapolation is on."""
    with pytest.raises(UsageError, match=f"^{given}: expected an alpha from 0"):
        Rules(**rules)
    Rules(**rules, extrapolate=True)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_no_extrapolation_goes_to_infinity(alpha):
    """Infinite alphas and NaN are refused even with extrapolation."""
    for rules in ({"alpha": alpha}, {"alpha_for": (("*", alpha),)}, {"depth": (0.0, alpha)}):
        with pytest.raises(UsageError, match="^--.*: expected a finite number"):
            Rules(**rules, extrapolate=True)


def test_options_are_read():
    """The text forms are parsed, also with colons and equal signs in a pattern."""
    assert parse_keep("ft:head.*") == ("finetuned", "head.*")
    assert parse_keep("zs:a:b") == ("zeroshot", "a:b")
    assert parse_alpha_for("a=b*=0.25") == ("a=b*", 0.25)
    assert parse_depth("0.2:0.8") == (0.2, 0.8)
    assert parse_dtype("bf16") == parse_dtype("torch.bfloat16") == parse_dtype("bfloat16")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_keep, "head"),
        (parse_keep, "xx:head"),
        (parse_keep, "zs:"),
        (parse_alpha_for, "head"),
        (parse_alpha_for, "=0.5"),
        (parse_alpha_for, "head=half"),
        (parse_depth, "0.5"),
        (parse_depth, "a:b"),
        (parse_dtype, "int8"),
    ],
)
def test_a_malformed_rule_is_refused_with_the_expected_form(parse, text):
    """A rule of the wrong form is refused with the expected form."""
    with pytest.raises(UsageError, match="expected"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "alphas"),
    [
        ("0:1:0.1", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ("0.5", (0.5,)),
        ("1,0", (0.0, 1.0)),
        ("0:0.4:0.2,0.5, 1", (0.0, 0.2, 0.4, 0.5, 1.0)),
        ("0:1:0.3", (0.0, 0.3, 0.6, 0.9)),
        ("0.3,0.3,0.30", (0.3,)),
        ("0:0:0.1", (0.0,)),
        ("-0", (0.0,)),
        ("1e-1", (0.1,)),
    ],
)
def test_lists_and_ranges(text, alphas):
    """Ranges include their end, decimals are exact, and the result is sorted without duplicates."""
    assert parse_alphas(text) == alphas


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "0:1",
        "0:1:0",
        "0:1:-0.1",
        "1:0:0.1",
        "0:2:1",
        "nan",
        "inf",
        "0:inf:1",
        "0:1:1e-9",
        "0:1:0.1:2",
        ",",
        "-0.1",
    ],
)
def test_an_impossible_list_of_alphas_is_refused(text):
    """Every malformed list of alphas is a UsageError."""
    with pytest.raises(UsageError):
        parse_alphas(text)


def test_too_many_alphas_are_refused():
    """The limit holds for one range and for the union of several."""
    assert len(parse_alphas("0:1:0.001,0:0.5:0.001")) == 1001
    for text in ("0:1:0.0009", "0:1:0.001,0.0005"):
        with pytest.raises(UsageError, match="more than 1001 values"):
            parse_alphas(text)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_alpha_outside_is_refused(alpha):
    """The message begins with the option as it was given."""
    with pytest.raises(UsageError, match=f"^--alphas 1:9: expected an alpha from 0 .* found {alpha:g}\\.$"):
        check_alpha(alpha, "--alphas 1:9")

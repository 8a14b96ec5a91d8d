"""The parameters that a sweep varies: their text form, grids, and the rules at a point."""

import pytest

from mergekit_wise.analysis import Point
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Rules
from mergekit_wise.merging.parameters import (
    Axis,
    fixed_alpha,
    grid,
    notes_on_axes,
    parse_axis,
    require_effect,
    with_point,
)

NAMES = ["visual.resblocks.0.w", "visual.resblocks.1.w", "head.weight"]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("alpha=0:1:0.5", Axis("alpha", (0.0, 0.5, 1.0))),
        ("alpha[text.*]=1,0", Axis("alpha[text.*]", (0.0, 1.0))),
        ("alpha[layer[1-4].a=b]=0.2", Axis("alpha[layer[1-4].a=b]", (0.2,))),
        ("depth-first=0:0.6:0.2,1", Axis("depth-first", (0.0, 0.2, 0.4, 0.6, 1.0))),
        ("depth-last=0.5", Axis("depth-last", (0.5,))),
        ("frozen-tolerance=0,1e-3", Axis("frozen-tolerance", (0.0, 0.001))),
    ],
)
def test_a_parameter_is_read_with_its_values(text, axis):
    """The name is what stands before the last equals sign; values are those of --alphas."""
    assert parse_axis(text) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth=0,1", "expected PARAM=RANGE"),
        ("alpha[]=0,1", "expected PARAM=RANGE"),
        ("alpha", "expected PARAM=RANGE"),
        ("=0:1:0.1", "expected PARAM=RANGE"),
        ("alpha=", "is not a number"),
        ("alpha=0:2:1", "from 0 .zero-shot. to 1"),
        ("alpha[x]=-0.1", "from 0 .zero-shot. to 1"),
        ("depth-first=0,nan", "is not a number"),
        ("depth-last=1.5", "found 1.5"),
        ("frozen-tolerance=0,1", "below 1"),
        ("frozen-tolerance=-1", "below 1"),
        ("depth-first=0:1:0.0001", "more than 1001"),
    ],
)
def test_what_is_no_parameter_or_no_value_is_refused(text, message):
    """The error begins with the option as it was given."""
    with pytest.raises(UsageError, match=message) as error:
        parse_axis(text)
    assert str(error.value).startswith(f"--sweep {text}: ")


def test_two_parameters_make_a_grid_in_ascending_order():
    """Every value of one occurs with every value of the other, once."""
    points = grid([Axis("depth-first", (0.0, 1.0)), Axis("depth-last", (0.2, 0.8))])
    assert [point.numbers for point in points] == [(0.0, 0.2), (0.0, 0.8), (1.0, 0.2), (1.0, 0.8)]
    assert {point.names for point in points} == {("depth-first", "depth-last")}


def test_more_than_a_grid_is_refused():
    """Three parameters, one parameter twice, or too many points."""
    many = tuple(step / 100 for step in range(41))
    for axes, message in (
        ([Axis(name, (0.0,)) for name in ("alpha", "depth-first", "depth-last")], "at most two"),
        ([Axis("alpha", (0.0,)), Axis("alpha", (1.0,))], "given twice"),
        ([Axis("alpha", many), Axis("depth-last", many)], "1,681 points"),
    ):
        with pytest.raises(UsageError, match=message):
            grid(axes)


def test_the_rules_at_a_point_are_those_of_the_options():
    """Each parameter sets what its option sets; an end that is not given is that of the rules, else alpha."""
    rules = Rules(0.3, alpha_for=(("head.*", 1.0),))
    assert with_point(rules, Point((("alpha", 0.7),))) == Rules(0.7, alpha_for=(("head.*", 1.0),))
    assert with_point(rules, Point((("depth-first", 0.1),))).depth == (0.1, 0.3)
    assert with_point(Rules(depth=(0.2, 0.8)), Point((("depth-last", 1.0),))).depth == (0.2, 1.0)
    assert with_point(rules, Point((("alpha", 0.9), ("depth-first", 0.1)))).depth == (0.1, 0.9)
    assert with_point(rules, Point((("frozen-tolerance", 0.0),))).frozen_tolerance == 0.0
    with pytest.raises(UsageError, match="no parameter"):
        with_point(rules, Point((("temperature", 0.1),)))


def test_a_swept_pattern_comes_before_all_other_patterns():
    """It decides although a pattern of the rules matches too; of two swept ones the first."""
    rules = Rules(alpha_for=(("head.*", 1.0),))
    assert with_point(rules, Point((("alpha[head.*]", 0.2),))).alphas(NAMES)["head.weight"] == 0.2
    both = Point((("alpha[head.*]", 0.2), ("alpha[*]", 0.4)))
    assert list(with_point(rules, both).alphas(NAMES).values()) == [0.4, 0.4, 0.2]


@pytest.mark.parametrize(
    ("axes", "rules", "is_refused"),
    [
        ([Axis("alpha", (0.0, 1.0))], Rules(), False),
        ([Axis("alpha", (0.0, 1.0))], Rules(depth=(0.0, 1.0)), True),
        ([Axis("alpha", (0.0, 1.0)), Axis("depth-first", (0.0, 1.0))], Rules(), False),
        ([Axis("alpha[head.*]", (0.0, 1.0))], Rules(keep=(("finetuned", "head.*"),)), True),
        ([Axis("alpha[*]", (0.0, 1.0)), Axis("alpha[head.*]", (0.0, 1.0))], Rules(), True),
        ([Axis("alpha[head.*]", (0.0, 1.0)), Axis("alpha[*]", (0.0, 1.0))], Rules(), False),
        ([Axis("alpha[text.*]", (0.0, 1.0))], Rules(), True),
        ([Axis("frozen-tolerance", (0.0, 0.1))], Rules(depth=(0.0, 1.0)), False),
    ],
)
def test_a_parameter_that_changes_no_tensor_is_refused(axes, rules, is_refused):
    """Otherwise rows of a table would differ in a number that has no effect."""
    if is_refused:
        with pytest.raises(UsageError, match="changes no tensor|no tensor name matches"):
            require_effect(axes, rules, NAMES, "ft.pt")
    else:
        require_effect(axes, rules, NAMES, "ft.pt")


def test_the_last_block_of_a_model_without_blocks_cannot_be_swept():
    """No tensor takes the second alpha there."""
    with pytest.raises(UsageError, match="no blocks"):
        require_effect([Axis("depth-last", (0.0, 1.0))], Rules(), ["fc.weight"], "ft.pt")


def test_what_is_fixed_is_said_and_recorded():
    """The other end of the depth, and the alpha of tensors that nothing else decides."""
    first, last = Axis("depth-first", (0.0, 1.0)), Axis("depth-last", (0.0, 1.0))
    assert "depth-last is not swept: it is 0.3" in " ".join(notes_on_axes([first], Rules(0.3)))
    assert "depth-first is not swept: it is 0.1" in " ".join(notes_on_axes([last], Rules(0.3, depth=(0.1, 0.9))))
    assert not list(notes_on_axes([first, last], Rules(0.3)))
    assert "alpha is 0.3" in " ".join(notes_on_axes([Axis("alpha[x]", (0.0,))], Rules(0.3)))
    assert fixed_alpha(Rules(0.3), Point((("depth-first", 0.0),))) == "--alpha 0.3"
    assert fixed_alpha(Rules(0.3), Point((("depth-first", 0.0), ("depth-last", 0.0)))) == ""
    assert fixed_alpha(Rules(0.3), Point.of_alpha(0.1)) == ""


def test_a_tolerance_of_a_half_is_no_default():
    """The default is an alpha of 0.5, with which others are compared."""
    assert Point((("depth-first", 0.5), ("depth-last", 0.5))).is_default
    assert not Point((("frozen-tolerance", 0.5),)).is_default
    small, large = (Point((("frozen-tolerance", value),)) for value in (0.1, 0.5))
    assert small.nearness > large.nearness

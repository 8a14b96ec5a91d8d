"""Alphas as people write them."""

import pytest

from mergekit_wise.errors import UsageError
from mergekit_wise.merging import check_alpha, parse_alphas


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
    """Ranges include their end; decimals are exact; the result is sorted and holds each once."""
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
def test_nonsense_is_refused(text):
    """As a wrong command line."""
    with pytest.raises(UsageError):
        parse_alphas(text)


def test_too_many_alphas_are_refused():
    """In one range, and in several that are short enough by themselves; each alpha counts once."""
    assert len(parse_alphas("0:1:0.001,0:0.5:0.001")) == 1001
    for text in ("0:1:0.0009", "0:1:0.001,0.0005"):
        with pytest.raises(UsageError, match="more than 1001 alphas"):
            parse_alphas(text)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_alpha_outside_is_refused(alpha):
    """Extrapolation must not happen by a slip; the message begins with what was written."""
    with pytest.raises(UsageError, match=f"^--alphas 1:9: expected an alpha from 0 .* found {alpha:g}\\.$"):
        check_alpha(alpha, "--alphas 1:9")

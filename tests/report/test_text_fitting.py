"""Texts of figures are broken and shortened to the room that they have."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergekit_wise.report.text_fitting import ELLIPSIS, text_width, wrapped


@settings(max_examples=30)
@given(st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "Zs")), max_size=80), st.floats(40, 200))
def test_no_line_is_wider_than_its_room(text, width):
    """Lines are at most as many and as wide as asked for, and nothing is lost unless the text ends in an ellipsis."""
    lines = wrapped(text, width, 8, most=3).splitlines()
    assert len(lines) <= 3
    assert all(text_width(line, 8) <= width for line in lines)
    if not lines or not lines[-1].endswith(ELLIPSIS):
        assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Average of 7 shifts (%)", "Average of 7\nshifts (%)"),
        ("imagenet-sketch-large", "imagenet-\nsketch-large"),
        ("short", "short"),
        ("", ""),
    ],
)
def test_lines_end_at_spaces_and_behind_hyphens(text, expected):
    """Words stay whole where they fit."""
    assert wrapped(text, 60, 9) == expected


def test_what_does_not_fit_ends_in_an_ellipsis():
    """The last line says that there was more."""
    found = wrapped("one two three four five six seven eight nine ten", 50, 9)
    assert found.startswith("one two")
    assert found.endswith(ELLIPSIS)

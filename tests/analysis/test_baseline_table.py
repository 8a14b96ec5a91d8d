"""Tables of models' accuracies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.analysis import Point, parse_points
from mergekit_wise.errors import ResultsError, WiseError

TABLE = """\
name,imagenet,imagenet-v2,imagenet-r,reference:imagenet-r
ResNet-50,76.13,63.20,36.2,92.1
"Net, large",80,,40,93
Small,60.5,48,,
"""


def test_a_table_gives_points_for_each_shift():
    """Per cent; empty cells are left out; a shift may have its own reference."""
    found = parse_points(TABLE, "mine.csv")
    assert found == {
        "imagenet-v2": (Point("ResNet-50", 0.7613, 0.632), Point("Small", 0.605, 0.48)),
        "imagenet-r": (
            Point("ResNet-50", pytest.approx(0.921), pytest.approx(0.362)),
            Point("Net, large", 0.93, 0.4),
        ),
    }


def test_shares_stay_as_they_are():
    """None is above 1. Blank lines, spaces, CR and a byte-order mark are nothing."""
    text = "\ufeffname, reference, r\r\n\r\na, 0.9, 1\r\n b ,0.8,0.00\r\n,,\r\n"
    assert parse_points(text, "x") == {"r": (Point("a", 0.9, 1.0), Point("b", 0.8, 0.0))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found no models"),
        ("name,reference,r\n", "found no models"),
        ("name,reference\na,1\n", "expected columns name, reference, then one a shift"),
        ("name,reference,r,r\na,1,1,1\n", "named once; found name, reference, r, r"),
        ("name,reference,\na,1,1\n", r"found name, reference, \(empty\)"),
        ("name,reference,r,reference:s\na,1,1,1\n", "found name, reference, r, reference:s"),
        ("name,reference,r\na,0.5\n", "line 2 has 2 cells, the first being 'a'; expected a name and 2 accuracies"),
        ("name,reference,r\na,0.5,0.5,0.5\n", "line 2 has 4 cells"),
        ("name,reference,r\n,0.5,0.5\n", "the first being 'empty'"),
        ("name,reference,r\na,0.5,0.5\nb,0.5,high\n", "line 3, column r: expected an accuracy.*found 'high'"),
        ("name,reference,r\na,0.5,nan\n", "line 2, column r: .*found 'nan'"),
        ("name,reference,r\na,0.5,-0.1\n", "found '-0.1'"),
        ("name,reference,r\na,101,0.1\n", "found '101'"),
        ("name,reference,r\na,0.5,0.4\na,0.6,0.5\n", "the model a stands twice"),
        ("name,reference,r\na,0.75,0.4\nb,76,40\n", "a has 0.75 in column reference, but other numbers are above 1"),
        ('name,reference,r\n"a,0.5,0.5\n', "is no comma-separated text"),
    ],
)
def test_what_is_no_such_table_is_told_by_line_and_column(text, said):
    """With the file's name."""
    with pytest.raises(ResultsError, match=f"^mine.csv: .*{said}"):
        parse_points(text, "mine.csv")


@given(st.text(st.sampled_from('a0.,1"\n\r -%\0'), max_size=60))
def test_any_text_is_a_table_or_an_error_of_ours(text):
    """Never another exception."""
    try:
        points = parse_points(text, "x")
    except WiseError:
        return
    assert all(0 <= value <= 1 for shift in points.values() for p in shift for value in (p.reference, p.shift))

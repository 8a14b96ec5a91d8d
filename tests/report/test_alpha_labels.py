"""Texts beside points keep apart from each other and from the points."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.report.alpha_labels import Box, Label, outward, place_labels

FRAME = Box(0, 0, 200, 150)
points = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 150)), min_size=1, max_size=25)


def box_of(label, middle):
    x, y = middle
    return Box(x - label.width / 2, y - label.height / 2, x + label.width / 2, y + label.height / 2)


@given(points, st.floats(0, 6.3))
def test_texts_never_meet_and_never_leave(places, direction):
    """Wherever points lie, texts are inside, apart from each other, and on no point, or they are left out."""
    labels = [Label(place, 14, 6, direction, 2) for place in places]
    symbols = [Box(x - 2, y - 2, x + 2, y + 2) for x, y in places]
    found = place_labels(labels, FRAME, symbols, [places])
    assert len(found) == len(labels)
    boxes = [box_of(label, middle) for label, middle in zip(labels, found, strict=True) if middle is not None]
    assert all(FRAME.holds(box) for box in boxes)
    assert not any(one.meets(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.meets(symbol) for box in boxes for symbol in symbols)


def test_a_point_alone_has_its_text_on_the_outer_side():
    """Nothing is in the way, so the text is in the wanted direction, as near as the symbol allows."""
    (middle,) = place_labels([Label((100, 75), 14, 6, math.pi / 2, 2)], FRAME, [Box(98, 73, 102, 77)], [])
    assert middle[0] == 100 or math.isclose(middle[0], 100, abs_tol=1e-6)
    assert 80 < middle[1] < 85


def test_the_outer_side_of_an_arc_is_above():
    """Of a curve that rises and falls, the outer side is up and to the left, up, and up and to the right."""
    places = [(0, 0), (10, 10), (20, 0)]
    assert math.isclose(outward(places, 1), math.pi / 2)
    assert math.pi / 2 < outward(places, 0) < math.pi
    assert 0 < outward(places, 2) < math.pi / 2
    assert outward([(5, 5)], 0) == math.pi / 2


def test_the_first_text_has_the_best_place():
    """Of two texts for one place, the second one gives way."""
    label = Label((100, 75), 14, 6, math.pi / 2, 0)
    first, second = place_labels([label, label], FRAME, [], [])
    assert first == place_labels([label], FRAME, [], [])[0]
    assert second != first

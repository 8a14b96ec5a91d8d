"""Where the alphas are written beside the points of a curve: no two texts meet, none covers a point or leaves the axes.

Knows places and boxes in points (1/72 inch); draws nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

GAPS = (1.5, 4.5)
"""Distances of a text from its point's symbol, the preferred one first."""

DIRECTIONS = 16
PAD = 0.8
"""Least distance between two texts."""

TURN, CROSSED = 1.0, 2.2
"""Costs: of half a turn away from the outer side of the curve, and of each line that a text lies on."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "Box", pad: float = 0.0) -> bool:
        """Whether two boxes overlap, or are closer to each other than `pad`."""
        return (
            self.left < other.right + pad
            and other.left < self.right + pad
            and self.bottom < other.top + pad
            and other.bottom < self.top + pad
        )

    def holds(self, other: "Box") -> bool:
        """Whether another box lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Label:
    """A text that is wanted beside a point.

    Attributes:
        at: the point's place.
        width, height: of the text.
        outward: the direction, in radians, in which it should lie.
        radius: half the size of the point's symbol.
    """

    at: Place
    width: float
    height: float
    outward: float
    radius: float = 0.0


def place_labels(
    labels: Sequence[Label], frame: Box, symbols: Sequence[Box], lines: Sequence[Sequence[Place]]
) -> list[Place | None]:
    """The middle of each text, or None where there is no room; earlier texts come first.

    Args:
        labels: the texts.
        frame: the axes, which texts do not leave.
        symbols: the boxes of all points, which texts do not cover.
        lines: what is drawn besides, which texts avoid if they can.
    """
    placed: list[Box] = []
    found: list[Place | None] = []
    for label in labels:
        best: tuple[float, Box] | None = None
        for cost, box in _candidates(label):
            free = not any(box.meets(other, PAD) for other in placed) and not any(box.meets(each) for each in symbols)
            if not free or not frame.holds(box):
                continue
            cost += CROSSED * sum(_crosses(line, box) for line in lines)
            if best is None or cost < best[0]:
                best = cost, box
        if best is None:
            found.append(None)
            continue
        placed.append(best[1])
        found.append(((best[1].left + best[1].right) / 2, (best[1].bottom + best[1].top) / 2))
    return found


def outward(places: Sequence[Place], number: int) -> float:
    """The direction to the left of a curve at one of its points, in radians: the outer side of a curve that bends down.

    A place alone has the direction up.
    """
    before, after = places[max(number - 1, 0)], places[min(number + 1, len(places) - 1)]
    across, up = after[0] - before[0], after[1] - before[1]
    return math.atan2(across, -up) if across or up else math.pi / 2


def _candidates(label: Label) -> Iterable[tuple[float, Box]]:
    """Boxes around the place of a label, with the cost of each."""
    for far, gap in enumerate(GAPS):
        for step in range(DIRECTIONS):
            turn = 2 * math.pi * step / DIRECTIONS
            x, y = math.cos(label.outward + turn), math.sin(label.outward + turn)
            # The nearest distance at which the box, with its gap, lies beside the point.
            reach = min(
                (label.width / 2 + label.radius + gap) / abs(x) if abs(x) > 1e-9 else math.inf,
                (label.height / 2 + label.radius + gap) / abs(y) if abs(y) > 1e-9 else math.inf,
            )
            middle = label.at[0] + x * reach, label.at[1] + y * reach
            box = Box(
                middle[0] - label.width / 2,
                middle[1] - label.height / 2,
                middle[0] + label.width / 2,
                middle[1] + label.height / 2,
            )
            yield 0.5 * far + TURN * abs(math.remainder(turn, 2 * math.pi)) / math.pi, box


def _crosses(line: Sequence[Place], box: Box) -> bool:
    """Whether a line of straight pieces passes through a box."""
    return any(_passes(first, second, box) for first, second in pairwise(line))


def _passes(first: Place, second: Place, box: Box) -> bool:
    """Whether a straight piece passes through a box (Liang and Barsky, 1984)."""
    begin, end = 0.0, 1.0
    across, up = second[0] - first[0], second[1] - first[1]
    for step, room in (
        (-across, first[0] - box.left),
        (across, box.right - first[0]),
        (-up, first[1] - box.bottom),
        (up, box.top - first[1]),
    ):
        if step == 0:
            if room < 0:
                return False
        elif step < 0:
            begin = max(begin, room / step)
        else:
            end = min(end, room / step)
    return begin <= end

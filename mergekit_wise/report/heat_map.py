"""The number of every mixture of a grid, two parameters swept at once, as colours: what is shown, and as inline SVG.

A line through the points of a grid would mean nothing. Knows summaries.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from mergekit_wise.report.comparison import BOTH, SHIFTS, SYMBOLS, Column, Comparison
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.svg import Point as Spot
from mergekit_wise.report.svg import heading_of, number, points_attribute
from mergekit_wise.report.table import percent

PALETTE = ["#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838"]
"""Cividis, from low to high, which people who are colour-blind read like all others (Nunez et al., 2018)."""

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 560, 52, 66, 24, 38
ROW = 30
"""Height of a cell, unless there are so many that the map would be higher than wide."""

NUMBERED = (30, 14)
"""Width and height of the smallest cell with room for its number."""

LABEL = 34
"""Distance between two labels of an axis."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One number of every mixture of a grid.

    Attributes:
        name: suitable for a file.
        title: what the number is, and of which model if there are several.
        x_label, y_label: the parameters.
        shares: the number, in [0, 1], by the values of both parameters.
        recommended: the values of the recommended mixture; None without a recommendation.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    shares: Mapping[tuple[float, float], float]
    recommended: tuple[float, ...] | None

    @property
    def xs(self) -> list[float]:
        """The values of the first parameter, ascending."""
        return sorted({x for x, _ in self.shares})

    @property
    def ys(self) -> list[float]:
        """The values of the second parameter, ascending."""
        return sorted({y for _, y in self.shares})

    def height(self, share: float) -> float:
        """Where a share lies between the lowest and the highest one, from 0 to 1; 1 if all are equal."""
        low, high = min(self.shares.values()), max(self.shares.values())
        return (share - low) / (high - low) if high > low else 1.0


def heat_maps(summary: Summary) -> tuple[HeatMap, ...]:
    """A map for each grid of a comparison: of the average of both, else of the shifts, else of the reference."""
    comparison = summary.comparison
    column = _column(comparison)
    found = []
    for curve, chosen in zip(comparison.curves, summary.recommendations, strict=True):
        results = {at: curve.result(at, column) for at in curve.alphas if isinstance(at, tuple) and len(at) == 2}
        shares = {(x, y): result.value for (x, y), result in results.items() if result is not None}
        if len(curve.swept) != 2 or not shares:
            continue
        of = f" of {curve.name}" if len(comparison.curves) > 1 else ""
        found.append(
            HeatMap(
                re.sub(r"[^a-z0-9.]+", "-", f"{comparison.suite}-grid-{'-'.join(curve.swept)}".lower()).strip("-."),
                f"{column.title}{of} (%)",
                SYMBOLS.get(curve.swept[0], curve.swept[0]),
                SYMBOLS.get(curve.swept[1], curve.swept[1]),
                shares,
                None if chosen is None else chosen.point.numbers,
            )
        )
    return tuple(found)


def draw_heat_map(drawn: HeatMap, ident: str) -> str:
    """The map as an ``svg`` element; `ident` starts the ids of its elements."""
    rows = min(ROW, (WIDTH - LEFT - RIGHT) / len(drawn.ys))
    bottom = TOP + rows * len(drawn.ys)
    return (
        f"{heading_of(ident, _title(drawn), _description(drawn), (WIDTH, bottom + BOTTOM), 'heat')}"
        f'<g{points_attribute(_points(drawn, rows))}></g><g aria-hidden="true">'
        f"{''.join(_cells(drawn, rows))}{''.join(_labels(drawn, rows))}{''.join(_legend(drawn, bottom))}</g></svg>"
    )


def colour_at(height: float) -> str:
    """The colour of a share by its `height`, between those of the palette."""
    place = min(max(height, 0.0), 1.0) * (len(PALETTE) - 1)
    lower = min(int(place), len(PALETTE) - 2)
    pairs = zip(_channels(PALETTE[lower]), _channels(PALETTE[lower + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - lower)):02x}" for a, b in pairs)


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def _column(comparison: Comparison) -> Column:
    """The column that is drawn."""
    for wanted in (BOTH, SHIFTS):
        for column in comparison.columns:
            if column.name == wanted:
                return column
    return next((c for c in comparison.columns if c.role == "shift"), comparison.columns[0])


def _title(drawn: HeatMap) -> str:
    return f"{drawn.title.removesuffix(' (%)')} for every {drawn.x_label} and {drawn.y_label}"


def _description(drawn: HeatMap) -> str:
    """The map in words: the best, the lowest and the recommended mixture."""
    ordered = sorted(drawn.shares, key=lambda at: drawn.shares[at])
    found = {"Highest": ordered[-1], "Lowest": ordered[0]}
    if drawn.recommended is not None and len(drawn.recommended) == 2:
        found["Recommended"] = (drawn.recommended[0], drawn.recommended[1])
    return " ".join(
        f"{word}: {percent(drawn.shares[x, y])} % at {drawn.x_label} {x:g}, {drawn.y_label} {y:g}."
        for word, (x, y) in found.items()
        if (x, y) in drawn.shares
    )


def _points(drawn: HeatMap, high: float) -> Iterator[Spot]:
    """The middle of every cell with its number in words, row by row from the top."""
    xs, ys = drawn.xs, drawn.ys
    wide = (WIDTH - LEFT - RIGHT) / len(xs)
    for row, y in enumerate(reversed(ys)):
        for column, x in enumerate(xs):
            if (x, y) in drawn.shares:
                text = f"{drawn.x_label} = {x:g}, {drawn.y_label} = {y:g}: {percent(drawn.shares[x, y])} %"
                yield Spot((LEFT + wide * (column + 0.5), TOP + high * (row + 0.5)), None, text)


def _cells(drawn: HeatMap, high: float) -> Iterator[str]:
    xs, ys = drawn.xs, drawn.ys
    wide = (WIDTH - LEFT - RIGHT) / len(xs)
    numbered = wide >= NUMBERED[0] and high >= NUMBERED[1]
    frame = ""
    for (x, y), share in sorted(drawn.shares.items()):
        left, top = LEFT + wide * xs.index(x), TOP + high * (len(ys) - 1 - ys.index(y))
        box = f'x="{number(left)}" y="{number(top)}" width="{number(wide)}" height="{number(high)}"'
        height = drawn.height(share)
        yield f'<rect {box} fill="{colour_at(height)}"/>'
        if numbered:
            middle = f'x="{number(left + wide / 2)}" y="{number(top + high / 2)}"'
            yield f'<text {middle} class="x {"on-light" if height > 0.5 else "on-dark"}">{percent(share)}</text>'
        if (x, y) == drawn.recommended:
            frame = f'<rect {box} class="frame outer"/><rect {box} class="frame"/>'
    yield frame


def _labels(drawn: HeatMap, high: float) -> Iterator[str]:
    """The values of both parameters, as many as have room, and the parameters' names."""
    xs, ys = drawn.xs, drawn.ys
    wide = (WIDTH - LEFT - RIGHT) / len(xs)
    bottom = TOP + high * len(ys)
    step = max(1, -(-LABEL // int(wide or 1)))
    for place, x in list(enumerate(xs))[::step]:
        yield f'<text x="{number(LEFT + wide * (place + 0.5))}" y="{number(bottom + 14)}" class="x">{x:g}</text>'
    step = max(1, -(-NUMBERED[1] // int(high or 1)))
    for place, y in list(enumerate(ys))[::step]:
        at = number(TOP + high * (len(ys) - place - 0.5))
        yield f'<text x="{LEFT - 6}" y="{at}" class="y">{y:g}</text>'
    middle = number((LEFT + WIDTH - RIGHT) / 2)
    yield f'<text x="{middle}" y="{number(bottom + 31)}" class="x name">{escape(drawn.x_label)}</text>'
    yield f'<text x="4" y="13" class="name">{escape(drawn.y_label)}</text>'


def _legend(drawn: HeatMap, bottom: float) -> Iterator[str]:
    """The colours from the lowest to the highest number, with both numbers."""
    shares, steps = drawn.shares.values(), 24
    left, high = WIDTH - RIGHT + 14, (bottom - TOP) / steps
    for step in range(steps):
        top = number(bottom - high * (step + 1))
        fill = colour_at(step / (steps - 1))
        yield f'<rect x="{left}" y="{top}" width="12" height="{number(high + 0.5)}" fill="{fill}"/>'
    yield f'<text x="{left + 16}" y="{TOP + 9}">{percent(max(shares))}</text>'
    yield f'<text x="{left + 16}" y="{number(bottom)}">{percent(min(shares))}</text>'

"""The chart of all data sets as inline SVG: every line is named at its end, so that no colour has to be recognised."""

from collections.abc import Iterator, Sequence
from html import escape

from mergekit_wise.report.overview import Overview
from mergekit_wise.report.plots import Trace
from mergekit_wise.report.svg import (
    SYMBOLS,
    Frame,
    Place,
    Point,
    axes,
    cursor,
    heading_of,
    line,
    moving_point,
    number,
    place_text,
    points_attribute,
    share_text,
    shortened,
)
from mergekit_wise.report.table import percent

WIDTH, HEIGHT, RIGHT = 680, 360, 190
LABEL = 14
"""Distance between two names at the ends of lines."""

NAME = RIGHT - 12 - 21
"""Room for a name, behind the line's end and the sample."""


def draw_overview(drawn: Overview, ident: str, stops: Sequence[float], start: int) -> str:
    """The chart as an ``svg`` element; `stops` are the alphas of the slider, which starts at stop number `start`."""
    frame = Frame(drawn.x, drawn.y, WIDTH, HEIGHT, right=RIGHT)
    swept = "alpha" if drawn.x_label == "α" else drawn.x_label
    return "".join(
        (
            heading_of(ident, f"{drawn.title} along {swept}", _description(drawn), (WIDTH, HEIGHT), "alpha overview"),
            axes(frame, drawn.x_label, drawn.y_label),
            cursor(frame, stops, start),
            *(_line(frame, trace, drawn.style(trace)) for trace in drawn.traces),
            *_names(frame, drawn),
            *(moving_point(frame, trace.mixtures, drawn.style(trace), stops, start) for trace in drawn.traces),
            "</svg>",
        )
    )


def _description(drawn: Overview) -> str:
    """The chart in words: the first, the best and the last result of each line."""
    words = []
    for trace in drawn.traces:
        best = max(trace.marks, key=lambda mark: mark.y)
        shown = dict.fromkeys((trace.marks[0], best, trace.marks[-1]))
        words.append(f"{trace.name}: {', '.join(f'{percent(m.y)} % at {trace.symbol} {m.x:g}' for m in shown)}.")
    return " ".join(words)


def _line(frame: Frame, trace: Trace, css: str) -> str:
    places = [frame.place(mark.x, mark.y) for mark in trace.marks]
    dots = "".join(f"{line([place])}h0" for place, m in zip(places, trace.marks, strict=True) if not trace.role(m))
    ends = "".join(
        f"{line([place])}{SYMBOLS[trace.role(m)]}"
        for place, m in zip(places, trace.marks, strict=True)
        if trace.role(m)
    )
    shown = [
        Point(place, m.alpha, f"{trace.name}, {place_text(trace, m.alpha)}: {share_text(m.y, m.y_interval)}")
        for place, m in zip(places, trace.marks, strict=True)
    ]
    return (
        f'<g class="{css}"{points_attribute(shown)}><path class="line" d="{line(places)}"/>'
        f'<path class="dots" d="{dots}"/><path class="symbols" d="{ends}"/></g>'
    )


def _names(frame: Frame, drawn: Overview) -> Iterator[str]:
    """The name of every line at its end, moved up or down where names would overlap, with a leader to the line."""
    ends = [(frame.place(trace.marks[-1].x, trace.marks[-1].y), trace) for trace in drawn.traces]
    ends.sort(key=lambda end: end[0][1])
    left = frame.edge + 12
    for (place, trace), at in zip(ends, _spread([place for place, _ in ends], frame), strict=True):
        name = shortened(trace.name, NAME)
        yield (
            f'<g class="{drawn.style(trace)}"><path class="leader" d="{line([place, (left - 4, at)])}"/>'
            f'<path class="line" d="M{left} {number(at)}h16"/></g>'
            f'<text class="end" x="{left + 21}" y="{number(at)}">{escape(name)}</text>'
        )


def _spread(places: Sequence[Place], frame: Frame) -> list[float]:
    """Heights for names, as near to the ascending ones of their lines as their distance allows."""
    step = min(LABEL, (frame.floor - frame.top) / max(1, len(places) - 1))
    heights: list[float] = []
    for _, y in places:
        heights.append(max(y, heights[-1] + step) if heights else y)
    # Names that were pushed below the axis push back those above them.
    lowest = float(frame.floor)
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], lowest)
        lowest = heights[place] - step
    return heights

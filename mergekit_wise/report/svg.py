"""A plot as inline SVG. Colours and dashes come from the page's style sheet, movement from its script.

Elements that follow the slider carry ``data-at``: their position at each of its stops, separated by |. Groups of marks
carry ``data-points``, from which the script makes points that can be focused: see `Point`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from unicodedata import east_asian_width

from mergekit_wise.report.plots import Guide, Interval, Mark, Plot, Trace
from mergekit_wise.report.scale import Scale
from mergekit_wise.report.table import alpha_text, percent, points
from mergekit_wise.results import At

LABEL = 300.0
"""Room for the label of an axis, in units of the view box."""

COLOURS = 8
"""Number of distinct colours; further curves are dashed."""

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a drawing and the margins around its axes, in units of its view box, with the scales of the axes."""

    x: Scale
    y: Scale
    width: int = 340
    height: int = 252
    left: int = 38
    right: int = 12
    top: int = 24
    bottom: int = 34

    @property
    def edge(self) -> int:
        """The right end of the axes."""
        return self.width - self.right

    @property
    def floor(self) -> int:
        """The lower end of the axes."""
        return self.height - self.bottom

    def place(self, x: float, y: float) -> Place:
        """Where a point of the scales lies in the drawing."""
        return (
            self.left + self.x.place(x) * (self.edge - self.left),
            self.floor - self.y.place(y) * (self.floor - self.top),
        )


@dataclass(frozen=True, slots=True)
class Point:
    """A mark that can be focused: where it is, its place in a sweep if it is one value, and what it says as a text."""

    place: Place
    alpha: At
    text: str


def points_attribute(marks: Iterable[Point]) -> str:
    """The attribute with a line for each point: x, y, alpha (may be empty) and text, separated by tabs."""
    lines = (
        "\t".join(
            (
                *map(number, mark.place),
                f"{mark.alpha:.9g}" if isinstance(mark.alpha, float) else "",
                " ".join(mark.text.split()),
            )
        )
        for mark in marks
    )
    return f' data-points="{escape(chr(10).join(lines))}"'


def heading_of(ident: str, title: str, description: str, size: tuple[float, float], kind: str = "") -> str:
    """The start of an ``svg`` element: its size, its role, and its name and description for screen readers."""
    style = f' class="{kind}"' if kind else ""
    return (
        f'<svg viewBox="0 0 {number(size[0])} {number(size[1])}" role="img" aria-labelledby="{ident}t {ident}d"{style}>'
        f'<title id="{ident}t">{escape(title)}</title><desc id="{ident}d">{escape(description)}</desc>'
    )


def draw(plot: Plot, ident: str, stops: Sequence[float], start: int) -> str:
    """The plot as an ``svg`` element; `stops` are the alphas of the slider, which starts at stop number `start`."""
    kind = "scatter" if plot.kind == "scatter" else "alpha"  # the script picks the nearest point, or along alpha alone
    frame = Frame(plot.x, plot.y)
    parts = [
        heading_of(ident, _title(plot), _description(plot), (frame.width, frame.height), kind),
        axes(frame, plot.x_label, plot.y_label),
        f'<clipPath id="{ident}c"><rect x="{frame.left}" y="{frame.top}" width="{frame.edge - frame.left}" '
        f'height="{frame.floor - frame.top}"/></clipPath><g clip-path="url(#{ident}c)">',
        *(_guide(frame, guide) for guide in plot.guides),
        "</g>",
    ]
    if plot.kind != "scatter":
        parts.append(cursor(frame, stops, start))
    parts += [_trace(plot, frame, trace) for trace in plot.traces]
    parts += [
        moving_point(frame, trace.mixtures, colour(trace.index), stops, start)
        for trace in plot.traces
        if len(trace.mixtures) > 1
    ]
    return "".join(parts) + "</svg>"


def colour(index: int | None) -> str:
    """The CSS classes of a curve's elements, by its place in the comparison."""
    return "nobody" if index is None else f"c{index % COLOURS}" + (" more" if index >= COLOURS else "")


def _title(plot: Plot) -> str:
    if plot.kind == "alpha":
        return f"{plot.title} along {'alpha' if plot.x_label == 'α' else plot.x_label}"
    if plot.kind == "difference":
        return f"{plot.title}: difference from alpha 0.5 along alpha"
    return f"{plot.x_label.removesuffix(' (%)')} against {plot.title}"


def _description(plot: Plot) -> str:
    """The plot in words: zero-shot, fine-tuned and the best alpha of each curve."""
    return " ".join(_described(plot, trace) for trace in plot.traces)


def _described(plot: Plot, trace: Trace) -> str:
    best = max(trace.marks, key=lambda mark: mark.y)
    swept = "alpha" if trace.symbol == "α" else trace.symbol
    words = []
    for mark in trace.marks:
        role = ", ".join(filter(None, (trace.end(mark.alpha), "best" if mark is best else "")))
        if role or len(trace.marks) == 1:
            role = role if trace.role(mark) or len(trace.marks) > 1 else "alone"
            name = "" if mark.alpha is None else f"{swept} {alpha_text(mark.alpha)} ({role}): "
            across = f" at {percent(mark.x)} % on {plot.x_label.removesuffix(' (%)')}" if plot.kind == "scatter" else ""
            value = f"{points(mark.y)} points" if plot.kind == "difference" else f"{percent(mark.y)} %"
            words.append(f"{name}{value}{across}")
    return f"{trace.name}: {'; '.join(words)}."


def axes(frame: Frame, x_label: str, y_label: str) -> str:
    """Grid, ticks and labels."""
    grid, texts = [], []
    for tick, label in zip(frame.x.ticks, frame.x.labels, strict=True):
        x = number(frame.place(tick, frame.y.low)[0])
        grid.append(f"M{x} {frame.top}V{frame.floor}")
        texts.append(f'<text x="{x}" y="{frame.floor + 14}" class="x">{label}</text>')
    for tick, label in zip(frame.y.ticks, frame.y.labels, strict=True):
        y = number(frame.place(frame.x.low, tick)[1])
        grid.append(f"M{frame.left} {y}H{frame.edge}")
        texts.append(f'<text x="{frame.left - 6}" y="{y}" class="y">{label}</text>')
    middle = (frame.left + frame.edge) / 2
    return (
        f'<path class="grid-lines" d="{"".join(grid)}"/><g class="ticks" aria-hidden="true">{"".join(texts)}'
        f'<text x="{middle:g}" y="{frame.height - 5}" class="x name">{_short(x_label)}</text>'
        f'<text x="4" y="13" class="name">{_short(y_label)}</text></g>'
    )


def cursor(frame: Frame, stops: Sequence[float], start: int) -> str:
    """The upright line at the slider's alpha."""
    places = [number(frame.place(stop, frame.y.low)[0]) for stop in stops]
    at = places[start]
    return f'<line class="cursor" x1="{at}" x2="{at}" y1="{frame.top}" y2="{frame.floor}"{_at(places)}/>'


def shortened(text: str, room: float) -> str:
    """A text that fits into `room`, in units of the view box, with an ellipsis if it is cut.

    Which font a browser takes is not known: the widths are those of a wide one, DejaVu Sans.
    """
    widths = [*map(_width, text)]
    if sum(widths) <= room:
        return text
    kept = sum(width <= room - _width("…") for width in accumulate(widths))
    return text[:kept].rstrip() + "…"


def _width(character: str) -> float:
    if east_asian_width(character) in "WF" or character in "mwMW%@…":
        return 11.0
    if character in " ijlfrtI.,:;'|()[]-":
        return 4.3
    return 9.2 if character in "<>=+~" else 7.7 if character.isupper() else 6.7


def _short(label: str) -> str:
    return escape(shortened(label, LABEL))


def _guide(frame: Frame, guide: Guide) -> str:
    places = [frame.place(x, y) for x, y in guide.points]
    return f'<path class="guide {guide.kind} {colour(guide.index)}" d="{line(places)}"/>'


def _trace(plot: Plot, frame: Frame, trace: Trace) -> str:
    """Intervals, the curve, its points: a square for zero-shot, a diamond for fine-tuned, dots between."""
    mixtures = trace.mixtures
    bands = () if plot.kind == "scatter" else trace.bands
    parts = [_band(frame, mixtures, band) for band in bands] or [_intervals(frame, trace.marks)]
    if len(mixtures) > 1:
        parts.append(f'<path class="line" d="{line(frame.place(m.x, m.y) for m in mixtures)}"/>')
    dots, symbols = [], []
    for mark in trace.marks:
        x, y = map(number, frame.place(mark.x, mark.y))
        if mark.alpha is None or trace.role(mark) or len(mixtures) == 1:
            symbols.append(f"M{x} {y}{SYMBOLS[trace.role(mark)] if mark.alpha is not None else _TRIANGLE}")
        else:
            dots.append(f"M{x} {y}h0")
    parts += [f'<path class="dots" d="{"".join(dots)}"/>'] if dots else []
    parts += [f'<path class="symbols" d="{"".join(symbols)}"/>'] if symbols else []
    shown = [Point(frame.place(mark.x, mark.y), mark.alpha, _text(plot, trace, mark)) for mark in trace.marks]
    return f'<g class="{colour(trace.index)}"{points_attribute(shown)}>{"".join(parts)}</g>'


_TRIANGLE = "m0-5.5l5 9h-10z"
SYMBOLS = {
    "zero-shot": "m-4-4h8v8h-8z",
    "fine-tuned": "m0-5.6l5.6 5.6-5.6 5.6-5.6-5.6z",
    "": "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
}
"""The outlines of the points of the two models and of a mixture, from their middle."""


def _text(plot: Plot, trace: Trace, mark: Mark) -> str:
    """A mark in words: the model, its alpha, and each coordinate that was measured with its interval."""
    name = f"{trace.name}, " if len(plot.traces) > 1 else ""
    if plot.kind == "difference":
        value, low, high = (points(each) for each in (mark.y, *(mark.y_interval or (mark.y, mark.y))))
        return f"{name}{place_text(trace, mark.alpha)}: {plot.title} {value} points ({low} to {high})"
    across = f"{plot.x_label.removesuffix(' (%)')} {share_text(mark.x, mark.x_interval)}, "
    value = f"{plot.title} {share_text(mark.y, mark.y_interval)}"
    return f"{name}{place_text(trace, mark.alpha)}: {across if plot.kind == 'scatter' else ''}{value}"


def place_text(trace: Trace, at: At) -> str:
    """A place in a sweep in words, with the model's name at its ends."""
    if at is None:
        return "one model"
    end = trace.end(at)
    return f"{trace.symbol} = {alpha_text(at)}" + (f" ({end})" if end else "")


def share_text(share: float, bounds: Interval | None) -> str:
    """A share as a percentage with its interval."""
    return f"{percent(share)} %" + ("" if bounds is None else f" ({percent(bounds[0])}–{percent(bounds[1])})")


def _band(frame: Frame, marks: Sequence[Mark], band: Sequence[Interval]) -> str:
    upper = [frame.place(mark.x, high) for mark, (_, high) in zip(marks, band, strict=True)]
    lower = [frame.place(mark.x, low) for mark, (low, _) in zip(marks, band, strict=True)][::-1]
    return f'<path class="band" d="{line([*upper, *lower])}z"/>'


def _intervals(frame: Frame, marks: Sequence[Mark]) -> str:
    pieces = []
    for mark in marks:
        if mark.y_interval:
            (x, high), (_, low) = frame.place(mark.x, mark.y_interval[1]), frame.place(mark.x, mark.y_interval[0])
            pieces.append(f"M{number(x)} {number(high)}V{number(low)}")
        if mark.x_interval:
            (left, y), (right, _) = frame.place(mark.x_interval[0], mark.y), frame.place(mark.x_interval[1], mark.y)
            pieces.append(f"M{number(left)} {number(y)}H{number(right)}")
    return f'<path class="bars" d="{"".join(pieces)}"/>' if pieces else ""


def moving_point(frame: Frame, mixtures: Sequence[Mark], style: str, stops: Sequence[float], start: int) -> str:
    """The point that the slider moves: at each stop the nearest alpha that was measured. `style` is its CSS class."""
    values = {mark.alpha: mark for mark in mixtures if isinstance(mark.alpha, float)}
    marks = [values[min(values, key=lambda value: abs(value - stop))] for stop in stops]
    places = [",".join(map(number, frame.place(mark.x, mark.y))) for mark in marks]
    x, y = places[start].split(",")
    return f'<circle class="now {style}" r="6" cx="{x}" cy="{y}"{_at(places)}/>'


def _at(places: Iterable[str]) -> str:
    return f' data-at="{"|".join(places)}"'


def line(places: Iterable[Place]) -> str:
    """The commands of a path through some places."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in places)


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")

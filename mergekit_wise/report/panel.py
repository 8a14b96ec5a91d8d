"""One plot on axes of matplotlib: curves with their intervals, lines to compare with, rings, and alphas beside points.

Knows plots and axes; knows nothing of figures and files.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mergekit_wise.analysis.point import DEFAULT
from mergekit_wise.report.alpha_labels import Box, Label, Place, outward, place_labels
from mergekit_wise.report.figure_style import COLOURS, GREY, INK, MARKERS, UNKNOWN_ALPHA, Style, colour_of, dot_of
from mergekit_wise.report.plots import Guide, Mark, Plot, Trace
from mergekit_wise.report.scale import Scale, inside
from mergekit_wise.report.text_fitting import text_width

POINTS = 72
"""Points per inch."""

CLEARANCE = 9.0
"""Least distance, in points, between two points of a curve that both get a text."""

HEIGHT = 1.05
"""Height of a line of text, in parts of its font's size."""

DASHES: dict[str, Any] = {"outputs": ":", "per-image": "-.", "diagonal": (0, (1, 2)), "baseline": (0, (6, 2))}
"""The dashes of lines to compare with, by kind; those of all other kinds are equal."""

SHORT_DASHES = (0, (3, 2))


def draw_panel(axes: Any, plot: Plot, style: Style) -> None:
    """Draw a plot without its texts; its axes have ticks."""
    _fit_axis(axes, "x", plot.x)
    _fit_axis(axes, "y", plot.y)
    axes.tick_params(labelsize=style.ticks, length=2.5, pad=2)
    axes.grid(color="#eaeef2", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    for guide in plot.guides:
        axes.plot(*zip(*guide.points, strict=True), zorder=1, **guide_style(plot, guide, style))
    for trace in plot.traces:
        _draw_trace(axes, plot, trace, style)


def guide_style(plot: Plot, guide: Guide, style: Style) -> dict[str, Any]:
    """How a line to compare with is drawn."""
    return {
        "color": GREY if guide.index is None or len(plot.traces) == 1 else colour_of(guide.index),
        "linewidth": 0.8 * style.line,
        "linestyle": DASHES.get(guide.kind, SHORT_DASHES),
        "alpha": 0.9,
    }


def trace_style(plot: Plot, trace: Trace, style: Style) -> dict[str, Any]:
    """How a curve is drawn."""
    return {
        "color": _colour(plot, trace),
        "linewidth": style.line,
        "marker": dot_of(trace.index),
        "markersize": style.dot,
    }


def role_style(plot: Plot, trace: Trace, role: str, style: Style) -> dict[str, Any]:
    """How one of the two models, or one of unknown alpha, is drawn."""
    is_alone = len(plot.traces) == 1 and role in MARKERS
    return {
        "color": COLOURS[list(MARKERS).index(role)] if is_alone else _colour(plot, trace),
        "marker": MARKERS.get(role, UNKNOWN_ALPHA),
        "markersize": style.symbol,
        "linestyle": "none",
    }


def ring_style(plot: Plot, trace: Trace, style: Style) -> dict[str, Any]:
    """How a ring is drawn."""
    return {
        "marker": "o",
        "markersize": style.ring,
        "markerfacecolor": "none",
        "markeredgecolor": COLOURS[2] if len(plot.traces) == 1 else _colour(plot, trace),
        "markeredgewidth": 1.1 * style.line,
        "linestyle": "none",
    }


def is_ringed(trace: Trace, mark: Mark) -> bool:
    """Whether a ring is around a mark."""
    at = None if trace.ringed is None else trace.ringed[0]
    return isinstance(at, float) and isinstance(mark.alpha, float) and math.isclose(at, mark.alpha, abs_tol=1e-9)


def label_alphas(axes: Any, plot: Plot, style: Style) -> None:
    """Write alphas beside the points of a plot against the reference; the layout of the figure must be final.

    The two models have none, because the legend has their alphas. Where there is no room, the recommended mixture and
    alpha 0.5 come first.
    """
    if plot.kind != "scatter":
        return
    wanted = list(_wanted(axes, plot))
    if not wanted:
        return
    height = HEIGHT * style.alphas
    labels = [
        Label(place, text_width(text, style.alphas), height, direction, radius)
        for place, text, direction, radius in (
            (place, f"{mark.alpha:g}", direction, _radius(trace, mark, style))
            for trace, mark, place, direction in wanted
        )
    ]
    box = axes.get_window_extent()
    scale = POINTS / axes.figure.dpi
    frame = Box(box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale)
    found = place_labels(labels, frame, _symbols(axes, plot, style), _lines(axes, plot))
    for (trace, mark, place, _), middle in zip(wanted, found, strict=True):
        if middle is not None:
            axes.annotate(
                f"{mark.alpha:g}",
                _place(plot, mark),
                xytext=(middle[0] - place[0], middle[1] - place[1]),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=style.alphas,
                color=_colour(plot, trace),
                zorder=7,
            )


def thin_ticks(axes: Any) -> None:
    """Remove the text of each tick that would touch the one before it; the layout of the figure must be final."""
    from matplotlib.ticker import FixedFormatter

    for axis, along, gap in ((axes.xaxis, ("x0", "x1"), 3.0), (axes.yaxis, ("y0", "y1"), 1.5)):
        kept, end = [], None
        for label in axis.get_ticklabels():
            box = label.get_window_extent()
            begin, stop = (getattr(box, side) for side in along)
            free = end is None or begin > end + axes.figure.dpi / POINTS * gap
            kept.append(label.get_text() if free else "")
            end = stop if free else end
        axis.set_major_formatter(FixedFormatter(kept))


def _draw_trace(axes: Any, plot: Plot, trace: Trace, style: Style) -> None:
    colour = _colour(plot, trace)
    mixtures = trace.mixtures
    bands = () if plot.kind == "scatter" else trace.bands
    for band in bands:
        lows, highs = zip(*band, strict=True)
        axes.fill_between([m.x for m in mixtures], lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=2)
    if not bands:
        for mark in trace.marks:
            for bar in _bars(plot, mark):
                axes.plot(*zip(*bar, strict=True), **_bar_style(colour, style))
    places = [_place(plot, mark) for mark in mixtures]
    axes.plot([x for x, _ in places], [y for _, y in places], zorder=3, **trace_style(plot, trace, style))
    for mark in trace.marks:
        at = [[value] for value in _place(plot, mark)]
        if isinstance(mark.alpha, tuple):  # of a grid, whose points no line joins
            axes.plot(*at, zorder=3, **{**trace_style(plot, trace, style), "linestyle": "none"})
        elif mark.alpha is None or trace.role(mark):
            axes.plot(*at, zorder=4, clip_on=False, **role_style(plot, trace, trace.role(mark), style))
        if is_ringed(trace, mark):
            axes.plot(*at, zorder=6, clip_on=False, **ring_style(plot, trace, style))


def _bar_style(colour: str, style: Style) -> dict[str, Any]:
    return {"color": colour, "alpha": 0.4, "linewidth": 0.6 * style.line, "zorder": 2}


def _bars(plot: Plot, mark: Mark) -> Iterator[list[Place]]:
    """The intervals of a mark as lines through its place."""
    x, y = _place(plot, mark)
    if mark.y_interval:
        yield [(x, inside(end)) for end in mark.y_interval]
    if mark.x_interval:
        yield [(inside(end), y) for end in mark.x_interval]


def _wanted(axes: Any, plot: Plot) -> Iterator[tuple[Trace, Mark, Place, float]]:
    """The mixtures that get a text, the most important first, with their places in points and outer sides."""
    taken: list[Place] = []
    every = []
    for trace in plot.traces:
        places = _in_points(axes, [_place(plot, mark) for mark in trace.mixtures])
        for number, (mark, place) in enumerate(zip(trace.mixtures, places, strict=True)):
            if not trace.role(mark):
                every.append((trace, mark, place, outward(places, number)))
    # Then round numbers, so that a curve of many alphas has 0.1, 0.2 ... rather than 0.01, 0.07 ...
    every.sort(key=lambda each: (not is_ringed(each[0], each[1]), each[1].alpha != DEFAULT, len(f"{each[1].alpha:g}")))
    for trace, mark, place, direction in every:
        if all((place[0] - x) ** 2 + (place[1] - y) ** 2 >= CLEARANCE**2 for x, y in taken):
            taken.append(place)
            yield trace, mark, place, direction


def _symbols(axes: Any, plot: Plot, style: Style) -> list[Box]:
    """The boxes of all points."""
    found = []
    for trace in plot.traces:
        for mark, (x, y) in zip(
            trace.marks, _in_points(axes, [_place(plot, mark) for mark in trace.marks]), strict=True
        ):
            radius = _radius(trace, mark, style)
            found.append(Box(x - radius, y - radius, x + radius, y + radius))
    return found


def _lines(axes: Any, plot: Plot) -> list[list[Place]]:
    """Everything that is drawn besides points, which texts avoid."""
    curves = [[_place(plot, mark) for mark in trace.mixtures] for trace in plot.traces]
    bars = [bar for trace in plot.traces for mark in trace.marks for bar in _bars(plot, mark)]
    guides = [list(guide.points) for guide in plot.guides]
    return [_in_points(axes, line) for line in (*curves, *bars, *guides) if len(line) > 1]


def _radius(trace: Trace, mark: Mark, style: Style) -> float:
    """Half the size of a point's symbol."""
    if is_ringed(trace, mark):
        return style.ring / 2
    return (style.symbol if mark.alpha is None or trace.role(mark) else style.dot) / 2


def _in_points(axes: Any, places: Sequence[Place]) -> list[Place]:
    scale = POINTS / axes.figure.dpi
    return [(x * scale, y * scale) for x, y in axes.transData.transform(places)] if places else []


def _colour(plot: Plot, trace: Trace) -> str:
    return INK if len(plot.traces) == 1 else colour_of(trace.index)


def _place(plot: Plot, mark: Mark) -> Place:
    """Where a mark is drawn: 0 and 1 are moved inside logit axes."""
    return (inside(mark.x), inside(mark.y)) if plot.kind == "scatter" else (mark.x, mark.y)


def _fit_axis(axes: Any, axis: Literal["x", "y"], scale: Scale) -> None:
    """Give an axis the range and the ticks of a scale."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    getattr(axes, f"set_{axis}scale")(scale.kind)
    getattr(axes, f"set_{axis}lim")(scale.low, scale.high)
    ruler = getattr(axes, f"{axis}axis")
    ruler.set_major_locator(FixedLocator(list(scale.ticks)))
    ruler.set_major_formatter(FixedFormatter(list(scale.labels)))
    ruler.set_minor_locator(NullLocator())

"""A plot as inline SVG. Colours and dashes come from the page's style sheet, movement from its script.

Elements that follow the slider carry ``data-at``: their position at each of its stops, separated by |.
"""

from collections.abc import Iterable, Sequence
from html import escape

from mergekit_wise.report.plots import Guide, Interval, Mark, Plot, Trace
from mergekit_wise.report.table import alpha_text, percent, points

WIDTH, HEIGHT = 340, 252
LEFT, RIGHT, TOP, BOTTOM = 38, 12, 24, 34
MAX_LABEL = 44
"""Characters of an axis label that are shown."""

COLOURS = 8
"""Number of distinct colours; further curves are dashed."""

Place = tuple[float, float]


def draw(plot: Plot, ident: str, stops: Sequence[float], start: int) -> str:
    """The plot as an ``svg`` element; `stops` are the alphas of the slider, which starts at stop number `start`."""
    kind = "scatter" if plot.kind == "scatter" else "alpha"  # the script picks the nearest point, or along alpha alone
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}t {ident}d" '
        f'class="{kind}"><title id="{ident}t">{escape(_title(plot))}</title>'
        f'<desc id="{ident}d">{escape(_description(plot))}</desc>',
        *_axes(plot),
        f'<clipPath id="{ident}c"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath><g clip-path="url(#{ident}c)">',
        *(_guide(plot, guide) for guide in plot.guides),
        "</g>",
    ]
    if plot.kind != "scatter":
        places = [_number(_place(plot, stop, 0)[0]) for stop in stops]
        at = places[start]
        parts.append(f'<line class="cursor" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"{_at(places)}/>')
    parts += [_trace(plot, trace) for trace in plot.traces]
    parts += [_moving_point(plot, trace, stops, start) for trace in plot.traces]
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
        role = "best" if mark is best else trace.role(mark)
        if role or len(trace.marks) == 1:
            role = role if trace.role(mark) or len(trace.marks) > 1 else "alone"
            name = "" if mark.alpha is None else f"{swept} {alpha_text(mark.alpha)} ({role}): "
            across = f" at {100 * mark.x:.1f} % on the reference" if plot.kind == "scatter" else ""
            value = f"{points(mark.y)} points" if plot.kind == "difference" else f"{percent(mark.y)} %"
            words.append(f"{name}{value}{across}")
    return f"{trace.name}: {'; '.join(words)}."


def _axes(plot: Plot) -> Iterable[str]:
    """Grid, ticks and labels."""
    grid = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    texts = []
    for tick, label in zip(plot.x.ticks, plot.x.labels, strict=True):
        x = _number(LEFT + plot.x.place(tick) * (right - LEFT))
        grid.append(f"M{x} {TOP}V{bottom}")
        texts.append(f'<text x="{x}" y="{bottom + 14}" class="x">{label}</text>')
    for tick, label in zip(plot.y.ticks, plot.y.labels, strict=True):
        y = _number(bottom - plot.y.place(tick) * (bottom - TOP))
        grid.append(f"M{LEFT} {y}H{right}")
        texts.append(f'<text x="{LEFT - 6}" y="{y}" class="y">{label}</text>')
    yield f'<path class="grid-lines" d="{"".join(grid)}"/><g class="ticks" aria-hidden="true">{"".join(texts)}'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 5}" class="x name">{_short(plot.x_label)}</text>'
    yield f'<text x="4" y="13" class="name">{_short(plot.y_label)}</text></g>'


def _short(label: str) -> str:
    return escape(label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…")


def _guide(plot: Plot, guide: Guide) -> str:
    places = [_place(plot, x, y) for x, y in guide.points]
    return f'<path class="guide {guide.kind} {colour(guide.index)}" d="{_line(places)}"/>'


def _trace(plot: Plot, trace: Trace) -> str:
    """Intervals, the curve, its points: a square for zero-shot, a diamond for fine-tuned, dots between."""
    mixtures = trace.mixtures
    bands = () if plot.kind == "scatter" else trace.bands
    parts = [_band(plot, mixtures, band) for band in bands] or [_intervals(plot, trace.marks)]
    if len(mixtures) > 1:
        parts.append(f'<path class="line" d="{_line(_place(plot, m.x, m.y) for m in mixtures)}"/>')
    dots, symbols = [], []
    for mark in trace.marks:
        x, y = (_number(value) for value in _place(plot, mark.x, mark.y))
        if mark.alpha is None or trace.role(mark) or len(mixtures) == 1:
            symbols.append(f"M{x} {y}{_SYMBOLS[trace.role(mark)] if mark.alpha is not None else _TRIANGLE}")
        else:
            dots.append(f"M{x} {y}h0")
    parts += [f'<path class="dots" d="{"".join(dots)}"/>'] if dots else []
    parts += [f'<path class="symbols" d="{"".join(symbols)}"/>'] if symbols else []
    return f'<g class="{colour(trace.index)}">{"".join(parts)}</g>'


_TRIANGLE = "m0-5.5l5 9h-10z"
_SYMBOLS = {
    "zero-shot": "m-4-4h8v8h-8z",
    "fine-tuned": "m0-5.6l5.6 5.6-5.6 5.6-5.6-5.6z",
    "": "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
}


def _band(plot: Plot, marks: Sequence[Mark], band: Sequence[Interval]) -> str:
    upper = [_place(plot, mark.x, high) for mark, (_, high) in zip(marks, band, strict=True)]
    lower = [_place(plot, mark.x, low) for mark, (low, _) in zip(marks, band, strict=True)][::-1]
    return f'<path class="band" d="{_line([*upper, *lower])}z"/>'


def _intervals(plot: Plot, marks: Sequence[Mark]) -> str:
    pieces = []
    for mark in marks:
        if mark.y_interval:
            (x, high), (_, low) = _place(plot, mark.x, mark.y_interval[1]), _place(plot, mark.x, mark.y_interval[0])
            pieces.append(f"M{_number(x)} {_number(high)}V{_number(low)}")
        if mark.x_interval:
            (left, y), (right, _) = _place(plot, mark.x_interval[0], mark.y), _place(plot, mark.x_interval[1], mark.y)
            pieces.append(f"M{_number(left)} {_number(y)}H{_number(right)}")
    return f'<path class="bars" d="{"".join(pieces)}"/>' if pieces else ""


def _moving_point(plot: Plot, trace: Trace, stops: Sequence[float], start: int) -> str:
    """The point that the slider moves: at each stop the nearest alpha that was measured."""
    mixtures = trace.mixtures
    if len(mixtures) < 2:
        return ""
    values = {mark.alpha: mark for mark in mixtures if isinstance(mark.alpha, float)}
    marks = [values[min(values, key=lambda value: abs(value - stop))] for stop in stops]
    places = [",".join(map(_number, _place(plot, mark.x, mark.y))) for mark in marks]
    x, y = places[start].split(",")
    return f'<circle class="now {colour(trace.index)}" r="6" cx="{x}" cy="{y}"{_at(places)}/>'


def _at(places: Iterable[str]) -> str:
    return f' data-at="{"|".join(places)}"'


def _place(plot: Plot, x: float, y: float) -> Place:
    return (
        LEFT + plot.x.place(x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - plot.y.place(y) * (HEIGHT - TOP - BOTTOM),
    )


def _line(places: Iterable[Place]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in places)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""A panel as inline SVG. Colours, dashes and what moves are left to the page's style sheet and script.

Elements that follow the slider carry ``data-at``: where they stand at each of its stops, with | between.
"""

from collections.abc import Iterable, Sequence
from html import escape

from mergekit_wise.report.panels import Guide, Mark, Panel, Trace

WIDTH, HEIGHT = 340, 252
LEFT, RIGHT, TOP, BOTTOM = 38, 12, 24, 34
LONGEST = 44
"""Characters of an axis' label."""

COLOURS = 8
"""Curves that have a colour of their own."""

Place = tuple[float, float]


def draw(panel: Panel, ident: str, stops: Sequence[float], start: int) -> str:
    """The panel as an element ``svg``; `stops` are the alphas of the slider, which stands at number `start`."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}t {ident}d" '
        f'class="{panel.kind}"><title id="{ident}t">{escape(_title(panel))}</title>'
        f'<desc id="{ident}d">{escape(_description(panel))}</desc>',
        *_axes(panel),
        f'<clipPath id="{ident}c"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath><g clip-path="url(#{ident}c)">',
        *(_guide(panel, guide) for guide in panel.guides),
        "</g>",
    ]
    if panel.kind == "alpha":
        places = [_number(_place(panel, stop, 0)[0]) for stop in stops]
        at = places[start]
        parts.append(f'<line class="cursor" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"{_at(places)}/>')
    parts += [_trace(panel, trace) for trace in panel.traces]
    parts += [_now(panel, trace, stops, start) for trace in panel.traces]
    return "".join(parts) + "</svg>"


def colour(index: int | None) -> str:
    """The classes of what belongs to a curve, by its place in the comparison."""
    return "nobody" if index is None else f"c{index % COLOURS}" + (" more" if index >= COLOURS else "")


def _title(panel: Panel) -> str:
    if panel.kind == "alpha":
        return f"{panel.column.title} along alpha"
    return f"{panel.x_label.removesuffix(' (%)')} against {panel.column.title}"


def _description(panel: Panel) -> str:
    """What the plot shows, in words: the ends and the best of each curve."""
    return " ".join(_told(panel, trace) for trace in panel.traces)


def _told(panel: Panel, trace: Trace) -> str:
    best = max(trace.marks, key=lambda mark: mark.y)
    shown = {0.0: "zero-shot", 1.0: "fine-tuned", best.alpha: "best"}
    words = []
    for mark in trace.marks:
        if mark.alpha in shown or len(trace.marks) == 1:
            name = "" if mark.alpha is None else f"alpha {mark.alpha:g} ({shown.get(mark.alpha, 'alone')}): "
            across = "" if panel.kind == "alpha" else f" at {100 * mark.x:.1f} % on the reference"
            words.append(f"{name}{100 * mark.y:.1f} %{across}")
    return f"{trace.name}: {'; '.join(words)}."


def _axes(panel: Panel) -> Iterable[str]:
    """Grid, ticks and labels."""
    grid = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    texts = []
    for tick, label in zip(panel.x.ticks, panel.x.labels, strict=True):
        x = _number(LEFT + panel.x.place(tick) * (right - LEFT))
        grid.append(f"M{x} {TOP}V{bottom}")
        texts.append(f'<text x="{x}" y="{bottom + 14}" class="x">{label}</text>')
    for tick, label in zip(panel.y.ticks, panel.y.labels, strict=True):
        y = _number(bottom - panel.y.place(tick) * (bottom - TOP))
        grid.append(f"M{LEFT} {y}H{right}")
        texts.append(f'<text x="{LEFT - 6}" y="{y}" class="y">{label}</text>')
    yield f'<path class="grid-lines" d="{"".join(grid)}"/><g class="ticks" aria-hidden="true">{"".join(texts)}'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 5}" class="x name">{_short(panel.x_label)}</text>'
    yield f'<text x="4" y="13" class="name">{_short(panel.y_label)}</text></g>'


def _short(label: str) -> str:
    return escape(label if len(label) <= LONGEST else label[: LONGEST - 1] + "…")


def _guide(panel: Panel, guide: Guide) -> str:
    places = [_place(panel, x, y) for x, y in guide.points]
    return f'<path class="guide {guide.kind} {colour(guide.index)}" d="{_line(places)}"/>'


def _trace(panel: Panel, trace: Trace) -> str:
    """Intervals, the curve, its points: a square for zero-shot, a diamond for fine-tuned, dots between."""
    mixtures = [mark for mark in trace.marks if mark.alpha is not None]
    band = panel.kind == "alpha" and len(mixtures) > 1 and all(mark.up for mark in mixtures)
    parts = [_band(panel, mixtures) if band else _bars(panel, trace.marks)]
    if len(mixtures) > 1:
        parts.append(f'<path class="line" d="{_line(_place(panel, m.x, m.y) for m in mixtures)}"/>')
    dots, ends = [], []
    for mark in trace.marks:
        x, y = (_number(value) for value in _place(panel, mark.x, mark.y))
        if mark.alpha in _END or len(mixtures) == 1:
            ends.append(f"M{x} {y}{_END.get(mark.alpha, _ALONE)}")
        else:
            dots.append(f"M{x} {y}h0")
    parts += [f'<path class="dots" d="{"".join(dots)}"/>'] if dots else []
    parts += [f'<path class="ends" d="{"".join(ends)}"/>'] if ends else []
    return f'<g class="{colour(trace.index)}">{"".join(parts)}</g>'


_END = {0.0: "m-4-4h8v8h-8z", 1.0: "m0-5.6l5.6 5.6-5.6 5.6-5.6-5.6z", None: "m0-5.5l5 9h-10z"}
_ALONE = "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z"


def _band(panel: Panel, marks: Sequence[Mark]) -> str:
    upper = [_place(panel, mark.x, mark.up[1]) for mark in marks if mark.up]
    lower = [_place(panel, mark.x, mark.up[0]) for mark in reversed(marks) if mark.up]
    return f'<path class="band" d="{_line([*upper, *lower])}z"/>'


def _bars(panel: Panel, marks: Sequence[Mark]) -> str:
    pieces = []
    for mark in marks:
        if mark.up:
            (x, high), (_, low) = _place(panel, mark.x, mark.up[1]), _place(panel, mark.x, mark.up[0])
            pieces.append(f"M{_number(x)} {_number(high)}V{_number(low)}")
        if mark.across:
            (left, y), (right, _) = _place(panel, mark.across[0], mark.y), _place(panel, mark.across[1], mark.y)
            pieces.append(f"M{_number(left)} {_number(y)}H{_number(right)}")
    return f'<path class="bars" d="{"".join(pieces)}"/>' if pieces else ""


def _now(panel: Panel, trace: Trace, stops: Sequence[float], start: int) -> str:
    """The point that the slider moves: at each stop, the nearest alpha that was measured."""
    mixtures = [mark for mark in trace.marks if mark.alpha is not None]
    if len(mixtures) < 2:
        return ""
    marks = [min(mixtures, key=lambda mark: abs((mark.alpha or 0.0) - stop)) for stop in stops]
    places = [",".join(map(_number, _place(panel, mark.x, mark.y))) for mark in marks]
    x, y = places[start].split(",")
    return f'<circle class="now {colour(trace.index)}" r="6" cx="{x}" cy="{y}"{_at(places)}/>'


def _at(places: Iterable[str]) -> str:
    return f' data-at="{"|".join(places)}"'


def _place(panel: Panel, x: float, y: float) -> Place:
    return (
        LEFT + panel.x.place(x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - panel.y.place(y) * (HEIGHT - TOP - BOTTOM),
    )


def _line(places: Iterable[Place]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in places)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

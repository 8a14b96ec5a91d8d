"""The legend of figures: an entry for everything that their plots show, each once.

Knows plots; it is drawn outside of the axes, so that it covers nothing.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from mergekit_wise.report.figure_style import GREY, Style
from mergekit_wise.report.panel import guide_style, is_ringed, ring_style, role_style, trace_style
from mergekit_wise.report.plots import Plot, Trace
from mergekit_wise.report.table import ENDPOINTS
from mergekit_wise.report.text_fitting import literal, text_width, wrapped

POINTS = 72

HANDLE, GAP = 2.0, 1.6
"""Widths, in parts of the font's size, of an entry's sample, and of the space between two columns."""

GUIDES = {
    "baseline": "baseline models",
    "diagonal": "y = x",
    "line": "straight line between the two models",
    "outputs": "output-space ensemble",
    "level": "model of unknown alpha",
    "per-image": "an alpha for each image",
}
"""What lines to compare with are, by kind."""

Entry = tuple[str, Any]


def legend_height(plots: Sequence[Plot], width: float, style: Style) -> float:
    """The height, in inches, of the legend below plots in a figure of this width in inches."""
    texts, columns = _arranged(list(dict(_entries(plots, style))), width, style)
    lines = [1 + text.count("\n") for text in texts]
    each, more = divmod(len(lines), columns)
    highest = each + (more > 0) + max(lines) - 1 if columns > 1 else sum(lines)
    return (highest * 1.35 * style.text + style.text) / POINTS


def draw_legend(figure: Any, plots: Sequence[Plot], style: Style) -> None:
    """Put the legend of the plots below all axes, in as many columns as fit."""
    entries = dict(_entries(plots, style))
    texts, columns = _arranged(list(entries), figure.get_figwidth(), style)
    figure.legend(
        list(entries.values()),
        list(map(literal, texts)),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=style.text,
        handlelength=HANDLE,
        handletextpad=0.6,
        columnspacing=GAP,
        labelspacing=0.35,
        borderpad=0.2,
        borderaxespad=0.2,
    )


def _arranged(texts: Sequence[str], width: float, style: Style) -> tuple[list[str], int]:
    """The texts of the entries, fitted into a figure of a width in inches, and the number of columns."""
    room, sample = width * POINTS - 2 * style.text, (HANDLE + 0.8) * style.text
    fitted = [wrapped(text, room - sample, style.text, most=2) for text in texts]
    widths = [sample + max(text_width(line, style.text) for line in text.splitlines()) for text in fitted]
    return fitted, _columns(widths, room, GAP * style.text)


def _columns(widths: Sequence[float], room: float, gap: float) -> int:
    """In how many columns entries of these widths fit, as matplotlib distributes them: longer columns come first."""
    for columns in range(len(widths), 1, -1):
        each, more = divmod(len(widths), columns)
        ends = list(accumulate(each + (place < more) for place in range(columns)))
        parts = [widths[start:end] for start, end in pairwise([0, *ends])]
        if sum(map(max, parts)) + gap * (columns - 1) <= room:
            return columns
    return 1


def _entries(plots: Sequence[Plot], style: Style) -> Iterator[Entry]:
    """Texts and samples: curves, the two models, recommended mixtures, intervals, then lines to compare with."""
    from matplotlib.lines import Line2D

    alone = all(len(plot.traces) == 1 for plot in plots)
    traces: dict[int, tuple[Plot, Trace]] = {}
    for plot in plots:
        for trace in plot.traces:
            traces.setdefault(trace.index, (plot, trace))
    has_alphas = any(plot.kind == "scatter" for plot in plots)
    for plot, trace in traces.values():
        of_one = len(trace.mixtures) < 2
        look = role_style(plot, trace, "", style) if not trace.mixtures else trace_style(plot, trace, style)
        text = trace.name
        if alone and not of_one:
            text = f"merged models, with {trace.symbol}" if has_alphas else "merged models"
        yield text, Line2D([], [], **look)
    for alpha, role in ENDPOINTS.items():
        for plot, trace in traces.values():
            if any(trace.role(mark) == role for mark in trace.marks):
                look = role_style(plot, trace, role, style)
                yield (
                    f"{trace.end(alpha)} (α = {alpha:g})",
                    Line2D([], [], **(look if alone else {**look, "color": GREY})),
                )
                break
    yield from _rings(list(traces.values()), style, alone=alone)
    yield from _intervals(plots, style)
    for plot in plots:
        for guide in plot.guides:
            if plot.kind == "difference":
                continue  # no difference, which the axis says
            look = guide_style(plot, guide, style)
            yield GUIDES[guide.kind], Line2D([], [], **(look if alone else {**look, "color": GREY}))


def _rings(traces: Sequence[tuple[Plot, Trace]], style: Style, *, alone: bool) -> Iterator[Entry]:
    from matplotlib.lines import Line2D

    for plot, trace in traces:
        if trace.ringed is not None and any(is_ringed(trace, mark) for mark in trace.marks):
            at, word = trace.ringed
            place = f" ({trace.symbol} = {at:g})" if alone and isinstance(at, float) else ""
            look = ring_style(plot, trace, style)
            yield word + place, Line2D([], [], **(look if alone else {**look, "markeredgecolor": GREY}))


def _intervals(plots: Sequence[Plot], style: Style) -> Iterator[Entry]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    for plot in plots:
        for trace in plot.traces:
            if plot.kind == "scatter" or not trace.bands:
                if any(mark.y_interval or mark.x_interval for mark in trace.marks):
                    yield "95 % interval", Line2D([], [], color=GREY, alpha=0.5, linewidth=0.6 * style.line)
            elif plot.kind == "difference" and len(trace.bands) > 1:
                yield "95 % interval of one comparison", Patch(color=GREY, alpha=0.4, linewidth=0)
                yield f"95 % interval for all {trace.symbol} at once", Patch(color=GREY, alpha=0.18, linewidth=0)
            else:
                yield "95 % interval", Patch(color=GREY, alpha=0.25, linewidth=0)

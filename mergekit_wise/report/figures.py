"""The page's plots for papers, drawn by matplotlib: PNG, SVG, PDF.

Knows panels. The same panels give the same bytes: files hold no date, and PDFs hold fonts that journals accept.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from mergekit_wise.report.panels import Mark, Panel, Trace
from mergekit_wise.report.scale import inside
from mergekit_wise.report.scatter import fit_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]

COLOURS = ("#1f6feb", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#0e7c86", "#7d5a00", "#57606a")
GREY = "#57606a"
MARKERS = {0.0: "s", 1.0: "D", None: "^"}
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "mergekit_wise", "pdf.fonttype": 42, "font.size": 9}
UNDATED: dict[Format, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw_panels(panels: Sequence[Panel], kind: Format) -> dict[str, bytes]:
    """Each panel as a file: its name with the ending, and what stands in it."""
    import matplotlib

    files: dict[str, bytes] = {}
    with matplotlib.rc_context(SETTINGS):
        for panel in panels:
            name, number = panel.name, 2
            while f"{name}.{kind}" in files:
                name, number = f"{panel.name}-{number}", number + 1
            buffer = BytesIO()
            _figure(panel).savefig(buffer, format=kind, metadata=UNDATED[kind], dpi=200)
            files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def _figure(panel: Panel) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fit_axis(axes, "x", panel.x)
    fit_axis(axes, "y", panel.y)
    axes.grid(color="#eaeef2", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    for guide in panel.guides:
        colour = GREY if guide.index is None else COLOURS[guide.index % len(COLOURS)]
        across, up = zip(*guide.points, strict=True)
        axes.plot(
            across,
            up,
            color=colour,
            linewidth=0.8,
            linestyle=":" if guide.kind == "outputs" else (0, (4, 3)),
            alpha=0.7,
            zorder=1,
        )
    for trace in panel.traces:
        _trace(axes, panel, trace)
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(_plain(panel.y_label))
    axes.set_title(_plain(panel.column.title), fontsize=10)
    if len(panel.traces) > 1:
        axes.legend(loc="best", frameon=False, fontsize=7)
    return figure


def _trace(axes: Any, panel: Panel, trace: Trace) -> None:
    colour = COLOURS[trace.index % len(COLOURS)]
    mixtures = [mark for mark in trace.marks if mark.alpha is not None]
    if panel.kind == "alpha" and len(mixtures) > 1 and all(mark.up for mark in mixtures):
        lows, highs = zip(*(mark.up for mark in mixtures if mark.up), strict=True)
        axes.fill_between([m.x for m in mixtures], lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=2)
    else:
        for mark in trace.marks:
            _bars(axes, mark, colour)
    places = [_place(panel, mark) for mark in mixtures]
    axes.plot(
        [x for x, _ in places],
        [y for _, y in places],
        color=colour,
        linewidth=1.2,
        marker="o",
        markersize=2.4,
        zorder=3,
        label=_plain(trace.name),
    )
    for mark in trace.marks:
        if mark.alpha in MARKERS:
            x, y = _place(panel, mark)
            style = {"marker": MARKERS[mark.alpha], "markersize": 4.6, "clip_on": False}
            axes.plot([x], [y], color=colour, zorder=4, **style)


def _bars(axes: Any, mark: Mark, colour: str) -> None:
    style = {"color": colour, "alpha": 0.4, "linewidth": 0.8, "zorder": 2}
    if mark.up:
        axes.plot([mark.x] * 2, list(map(inside, mark.up)), **style)
    if mark.across:
        axes.plot(list(map(inside, mark.across)), [mark.y] * 2, **style)


def _place(panel: Panel, mark: Mark) -> tuple[float, float]:
    """Where a mark is drawn: 0 and 1 have no place on logit axes."""
    return (inside(mark.x), inside(mark.y)) if panel.kind == "scatter" else (mark.x, mark.y)


def _plain(text: str) -> str:
    """A text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")

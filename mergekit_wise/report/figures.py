"""Plots for papers, drawn by matplotlib as PNG, SVG or PDF, and the picture of a sweep (the paper's Figure 1).

Knows plots. The same plot gives the same bytes: files hold no date, and PDFs hold fonts that journals accept.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mergekit_wise.analysis import Candidate, Point
from mergekit_wise.checkpoint import require_output, write_atomically
from mergekit_wise.errors import OutputError
from mergekit_wise.report.heat_figure import heat_figure
from mergekit_wise.report.heat_map import HeatMap, candidates_map
from mergekit_wise.report.matplotlib_folder import choose_folder
from mergekit_wise.report.plots import Mark, Plot, Trace, candidates_plot
from mergekit_wise.report.scale import Scale, inside
from mergekit_wise.report.table import ENDPOINTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure

Format = Literal["png", "svg", "pdf"]

COLOURS = ("#1f6feb", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#0e7c86", "#7d5a00", "#57606a")
GREY = "#57606a"
MARKERS = {"zero-shot": "s", "fine-tuned": "D"}
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "mergekit_wise", "pdf.fonttype": 42, "font.size": 9}
UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

CLEARANCE = 16
"""Points (1/72 inch) between two marks that both have a label."""


def draw_plots(plots: Sequence[Plot | HeatMap], kind: Format) -> dict[str, bytes]:
    """The content of a file for each plot, by its name with the suffix; equal names are numbered."""
    files: dict[str, bytes] = {}
    for plot in plots:
        name, number = plot.name, 2
        while f"{name}.{kind}" in files:
            name, number = f"{plot.name}-{number}", number + 1
        files[f"{name}.{kind}"] = _content(_figure(plot, (3.6, 3.0)), kind)
    return files


def draw_marked(plot: Plot, at: float, label: str) -> bytes:
    """A PNG of one plot with a ring around the mixture at a value of the swept parameter, called `label`."""
    return _content(_figure(plot, (6.4, 5.2), at, label), "png")


def require_drawable(output: Path) -> None:
    """Raise OutputError, before any work is done, if `output` has no picture's suffix or cannot be written."""
    if output.suffix.lower().removeprefix(".") not in UNDATED:
        raise OutputError(f"{output}: expected a name that ends in {', '.join(f'.{kind}' for kind in UNDATED)}.")
    require_output(output)


def draw_scatter(candidates: Sequence[Candidate], recommended: Point, output: Path) -> None:
    """Draw the average of the shifts against the reference, with alphas and 95 % intervals; mark `recommended`.

    Raises OutputError if the picture cannot be written, or if no reference or no shift was measured.
    """
    require_drawable(output)
    if not has_both(candidates[0]):
        raise OutputError(f"{output}: the plot needs a reference and a shift, and one of the two was not measured.")
    save_figure(sweep_figure(candidates, recommended), output)


def draw_grid(candidates: Sequence[Candidate], recommended: Point, output: Path) -> None:
    """Draw the number that decides for every mixture of a grid; mark `recommended`.

    Raises OutputError if the picture cannot be written.
    """
    require_drawable(output)
    save_figure(sweep_figure(candidates, recommended), output)


def has_both(candidate: Candidate) -> bool:
    """Whether a mixture was measured on a reference and on shifts, which are the two axes of the headline."""
    return bool(candidate.has_reference and candidate.shifts)


def sweep_figure(candidates: Sequence[Candidate], recommended: Point) -> "Figure":
    """The average of the shifts against the reference for every mixture, or a map of a grid's; marks `recommended`.

    The mixtures of a sweep of one parameter were measured on both (`has_both`).
    """
    with drawing():
        if len(recommended.names) > 1:
            figure = _figure(candidates_map(candidates, recommended), (6.4, 5.2))
        else:
            figure = _figure(candidates_plot(candidates), (6.4, 5.2), recommended.numbers[0])
        figure.draw_without_rendering()  # makes what is made late with these settings, too
    return figure


def save_figure(figure: "Figure", output: Path) -> None:
    """Write a figure in the format of the file's name. Raises OutputError."""
    write_atomically(output, _content(figure, output.suffix.lower().removeprefix(".")))


@contextmanager
def drawing() -> Iterator[None]:
    """The settings with which figures are made and written; matplotlib's own are back afterwards."""
    choose_folder()
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def _content(figure: "Figure", kind: str) -> bytes:
    """The bytes of a file."""
    buffer = BytesIO()
    with drawing():
        figure.savefig(buffer, format=kind, metadata=UNDATED[kind], dpi=200)
    return buffer.getvalue()


def _figure(
    plot: Plot | HeatMap, size: tuple[float, float], at: float | None = None, label: str = "recommended"
) -> "Figure":
    """A figure; `size` in inches. With `at`, that mixture is marked, and alphas are written beside all."""
    with drawing():
        return heat_figure(plot, size) if isinstance(plot, HeatMap) else _plotted(plot, size, at, label)


def _plotted(plot: Plot, size: tuple[float, float], at: float | None, label: str) -> "Figure":
    from mergekit_wise.report.new_figure import new_figure

    figure = new_figure(size)
    axes = figure.add_subplot()
    _fit_axis(axes, "x", plot.x)
    _fit_axis(axes, "y", plot.y)
    axes.grid(color="#eaeef2", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    for guide in plot.guides:
        axes.plot(
            *zip(*guide.points, strict=True),
            color=GREY if guide.index is None else COLOURS[guide.index % len(COLOURS)],
            linewidth=0.8,
            linestyle={"outputs": ":", "per-image": "-."}.get(guide.kind, (0, (4, 3))),
            alpha=0.7,
            zorder=1,
        )
    for trace in plot.traces:
        _draw_trace(axes, plot, trace)
    axes.set_xlabel(_literal(plot.x_label))
    axes.set_ylabel(_literal(plot.y_label))
    axes.set_title(_literal(plot.title), fontsize=10)
    if at is not None:
        for trace in plot.traces:
            _label_marks(axes, plot, trace, at, label)
        axes.legend(loc="best", frameon=False, fontsize=9)
    elif len(plot.traces) > 1:
        axes.legend(loc="best", frameon=False, fontsize=7)
    return figure


def _draw_trace(axes: Any, plot: Plot, trace: Trace) -> None:
    colour = COLOURS[trace.index % len(COLOURS)]
    mixtures = trace.mixtures
    bands = () if plot.kind == "scatter" else trace.bands
    for band in bands:
        lows, highs = zip(*band, strict=True)
        axes.fill_between([m.x for m in mixtures], lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=2)
    if not bands:
        for mark in trace.marks:
            _draw_intervals(axes, mark, colour)
    places = [_place(plot, mark) for mark in mixtures]
    axes.plot(
        [x for x, _ in places],
        [y for _, y in places],
        color=colour,
        linewidth=1.2,
        marker="o",
        markersize=2.4,
        zorder=3,
        label=_literal(trace.name),
    )
    for mark in trace.marks:
        if isinstance(mark.alpha, tuple):  # of a grid, whose points no line joins
            axes.plot(*([value] for value in _place(plot, mark)), color=colour, marker="o", markersize=2.4, zorder=3)
        elif mark.alpha is None or trace.role(mark):
            style = {"marker": MARKERS.get(trace.role(mark), "^"), "markersize": 4.6, "clip_on": False}
            axes.plot(*([value] for value in _place(plot, mark)), color=colour, zorder=4, **style)


def _draw_intervals(axes: Any, mark: Mark, colour: str) -> None:
    style = {"color": colour, "alpha": 0.4, "linewidth": 0.8, "zorder": 2}
    if mark.y_interval:
        axes.plot([mark.x] * 2, list(map(inside, mark.y_interval)), **style)
    if mark.x_interval:
        axes.plot(list(map(inside, mark.x_interval)), [mark.y] * 2, **style)


def _label_marks(axes: Any, plot: Plot, trace: Trace, at: float, label: str) -> None:
    """Name the two models in the legend, ring the mixture at one alpha, and write alphas beside the other marks.

    Alphas are on the outer side of the curve, as many as do not crowd each other.
    """
    marks = trace.mixtures
    for mark in marks:
        if role := trace.role(mark):
            colour = COLOURS[list(ENDPOINTS.values()).index(role)]
            style = {"marker": MARKERS[role], "s": 58, "color": colour, "zorder": 5, "clip_on": False}
            axes.scatter(*_place(plot, mark), label=f"{role} (α = {mark.alpha:g})", **style)
        if mark.alpha == at:
            style = {"s": 140, "facecolors": "none", "edgecolors": COLOURS[2], "linewidths": 1.8, "zorder": 6}
            axes.scatter(*_place(plot, mark), label=_literal(f"{label} ({trace.symbol} = {at:g})"), **style)
    axes.figure.draw_without_rendering()  # settles where marks are
    places = axes.transData.transform([_place(plot, mark) for mark in marks]) * 72 / axes.figure.dpi
    labelled = [places[0], places[-1]]
    for before, here, after, mark in zip(places, places[1:], places[2:], marks[1:-1], strict=False):
        if min(math.dist(here, other) for other in labelled) <= CLEARANCE:
            continue
        labelled.append(here)
        across, up = after - before
        length = math.hypot(across, up) or 1.0
        axes.annotate(
            f"{mark.alpha:g}",
            _place(plot, mark),
            xytext=(-12 * up / length, 12 * across / length),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def _fit_axis(axes: Any, axis: Literal["x", "y"], scale: Scale) -> None:
    """Give an axis the range and the ticks of a scale."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    getattr(axes, f"set_{axis}scale")(scale.kind)
    getattr(axes, f"set_{axis}lim")(scale.low, scale.high)
    ruler = getattr(axes, f"{axis}axis")
    ruler.set_major_locator(FixedLocator(list(scale.ticks)))
    ruler.set_major_formatter(FixedFormatter(list(scale.labels)))
    ruler.set_minor_locator(NullLocator())


def _place(plot: Plot, mark: Mark) -> tuple[float, float]:
    """Where a mark is drawn: 0 and 1 are moved inside logit axes."""
    return (inside(mark.x), inside(mark.y)) if plot.kind == "scatter" else (mark.x, mark.y)


def _literal(text: str) -> str:
    """A text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")

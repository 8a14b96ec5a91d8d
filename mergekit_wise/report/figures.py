"""Figures, drawn by matplotlib as PNG, SVG or PDF: the plots of a report, the picture of a sweep, a figure for papers.

Knows plots. The same plot gives the same bytes: files hold no date, and PDFs hold fonts that journals accept. A file
has exactly the size of its figure, in inches.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mergekit_wise.analysis import Recommendation
from mergekit_wise.checkpoint import require_output, write_atomically
from mergekit_wise.errors import OutputError, ResultsError
from mergekit_wise.report.figure_style import ALONE, SETTINGS
from mergekit_wise.report.heat_figure import heat_figure
from mergekit_wise.report.heat_map import HeatMap
from mergekit_wise.report.matplotlib_folder import choose_folder
from mergekit_wise.report.paper_plots import with_diagonal
from mergekit_wise.report.plots import Plot
from mergekit_wise.report.sweep_plot import sweep_plot
from mergekit_wise.report.text_fitting import not_drawn
from mergekit_wise.results import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure

Format = Literal["png", "svg", "pdf"]

UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

SIZE = (4.8, 4.2)
"""Width and height in inches of the figure of one plot."""

NOT_DRAWN = (
    "Figures show boxes in place of characters that matplotlib's font lacks: {}. 'wise report --label NAME=TEXT' gives "
    "a name that they can show; its page and its tables have all characters."
)

PLOT = 3.0
"""Inches of that height that its legend leaves to the plot."""


def draw_plots(plots: Sequence[Plot | HeatMap], kind: Format) -> dict[str, bytes]:
    """The content of a file for each plot, by its name with the suffix; equal names are numbered."""
    files: dict[str, bytes] = {}
    for plot in plots:
        name, number = plot.name, 2
        while f"{name}.{kind}" in files:
            name, number = f"{plot.name}-{number}", number + 1
        files[f"{name}.{kind}"] = _content(plot_figure(plot), kind)
    return files


def draw_marked(plot: Plot, at: float, label: str) -> bytes:
    """A PNG of one plot with a ring around the mixture at a value of the swept parameter, called `label`."""
    traces = tuple(replace(trace, ringed=(at, label)) for trace in plot.traces)
    return _content(plot_figure(replace(plot, traces=traces)), "png")


def require_drawable(output: Path) -> None:
    """Raise OutputError, before any work is done, if `output` has no picture's suffix or cannot be written."""
    if output.suffix.lower().removeprefix(".") not in UNDATED:
        raise OutputError(f"{output}: expected a name that ends in {', '.join(f'.{kind}' for kind in UNDATED)}.")
    require_output(output)


def draw_sweep(records: Sequence[Record], recommended: Recommendation, output: Path) -> None:
    """Write `sweep_figure` to a file.

    Raises OutputError if it cannot be written, or if no reference or no shift was measured.
    """
    require_drawable(output)
    try:
        figure = sweep_figure(records, recommended)
    except ResultsError as error:
        raise OutputError(f"{output}: {error}") from error
    save_figure(figure, output)


def sweep_figure(records: Sequence[Record], recommended: Recommendation) -> "Figure":
    """The first plot of the report on a sweep: the average of the shifts against the reference, or a map of a grid.

    Raises ResultsError if a sweep of one parameter was measured on no reference or on no shift.
    """
    plot = sweep_plot(records, recommended)
    if plot is None:
        raise ResultsError("The plot needs a reference and a shift, and one of the two was not measured.")
    with drawing():
        figure = plot_figure(plot)
        figure.draw_without_rendering()  # makes what is made late with these settings, too
    return figure


def plot_figure(plot: Plot | HeatMap) -> "Figure":
    """The figure of one plot, of a report or of a sweep."""
    with drawing():
        if isinstance(plot, HeatMap):
            return heat_figure(plot, SIZE)
        from mergekit_wise.report.figure_legend import legend_height
        from mergekit_wise.report.plot_figure import panels_figure

        # A legend of many lines makes the figure higher instead of the plot smaller.
        height = max(SIZE[1], PLOT + legend_height([plot], SIZE[0], ALONE))
        return panels_figure([with_diagonal(plot)], (SIZE[0], height), {0: (0, 0, 1, 1)}, ALONE)


def save_figure(figure: "Figure", output: Path) -> None:
    """Write a figure in the format of the file's name. Raises OutputError."""
    write_atomically(output, figure_content(figure, output))


def figure_content(figure: "Figure", output: Path) -> bytes:
    """The bytes of a figure in the format of a file's name."""
    return _content(figure, output.suffix.lower().removeprefix("."))


def unshown(texts: Iterable[str]) -> tuple[str, ...]:
    """A note on the characters of texts that no figure can show; none if all can be shown."""
    choose_folder()
    lacking = not_drawn(texts)
    return (NOT_DRAWN.format(lacking),) if lacking else ()


def texts_of(plots: Iterable[Plot | HeatMap]) -> Iterator[str]:
    """The names in plots."""
    for plot in plots:
        yield from (plot.title, plot.x_label, plot.y_label)
        for trace in plot.traces if isinstance(plot, Plot) else ():
            yield from (trace.name, *trace.ends.values())


@contextmanager
def drawing() -> Iterator[None]:
    """The settings with which figures are made and written; matplotlib's own are back afterwards."""
    choose_folder()
    import matplotlib

    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # It would warn of each character in each figure several times; see `unshown`.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from")
        yield


def _content(figure: "Figure", kind: str) -> bytes:
    """The bytes of a file."""
    buffer = BytesIO()
    with drawing():
        figure.savefig(buffer, format=kind, metadata=UNDATED[kind], dpi=200)
    return buffer.getvalue()

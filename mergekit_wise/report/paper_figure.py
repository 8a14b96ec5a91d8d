"""One figure for papers, as wide as a column or as the text: the headline of a suite, and a small panel for each shift.

Knows summaries; knows nothing of files.
"""

from math import ceil
from typing import TYPE_CHECKING, Literal

from mergekit_wise.report.figure_style import PANEL
from mergekit_wise.report.figures import drawing
from mergekit_wise.report.paper_plots import headline_plots, with_diagonal
from mergekit_wise.report.summary import Summary
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mergekit_wise.report.plot_figure import Cells

Width = Literal["column", "text"]

INCHES: dict[Width, float] = {"column": 3.25, "text": 6.75}
"""Widths of a column and of the text in the styles of most conferences (CVPR, ICML, ACL)."""

MOST: dict[Width, int] = {"column": 8, "text": 20}
"""How many small panels fit on a page."""

ROW, NAMES = 1.35, 0.1
"""Inches: the height of a row, and what the labels of the axes need besides."""


def paper_figure(summary: Summary, width: Width) -> tuple["Figure", tuple[str, ...]] | None:
    """The figure, and notes on what it leaves out; None if there is nothing to draw.

    The first panel is the average of the shifts against the reference, the others are the shifts; without a reference,
    everything is along alpha. A suite with one shift has one panel.
    """
    plots = headline_plots(summary)
    if not plots:
        return None
    shown = [with_diagonal(plot) for plot in plots[: 1 + MOST[width]]]
    notes: tuple[str, ...] = ()
    if len(plots) > len(shown):
        wider = " --width text has room for more." if width == "column" else ""
        left = ", ".join(plot.title for plot in plots[len(shown) :])
        notes = (f"The figure has room for {plural(len(shown), 'panel')} and leaves out {left}.{wider}",)
    places, rows = _places(len(shown), width)
    with drawing():
        from mergekit_wise.report.figure_legend import legend_height
        from mergekit_wise.report.plot_figure import panels_figure

        size = INCHES[width], round(rows * ROW + NAMES + legend_height(shown, INCHES[width], PANEL), 2)
        return panels_figure(shown, size, places, PANEL), notes


def _places(panels: int, width: Width) -> tuple[dict[int, "Cells"], int]:
    """For each panel the cells of a grid that it spans, and the number of rows.

    In a column the first panel has the whole width, and the others are in pairs below. Over the text, the first one has
    four cells at the left, and the others fill two rows beside it, or all rows of four cells if they are many.
    """
    others = panels - 1
    if width == "column":
        places = {0: (0, 0, 2, 2)}
        for number in range(others):
            places[1 + number] = (2 + number // 2, number % 2, 1, 1)
        return places, 2 + ceil(others / 2)
    if others <= 0:
        return {0: (0, 0, 2, 2)}, 2
    beside = ceil(others / 2) if others <= 6 else 2
    columns = 2 + beside
    places = {0: (0, 0, 2, 2)}
    for number in range(others):
        if number < 2 * beside:
            places[1 + number] = (number // beside, 2 + number % beside, 1, 1)
        else:
            row, column = divmod(number - 2 * beside, columns)
            places[1 + number] = (2 + row, column, 1, 1)
    return places, max(row + high for row, _, high, _ in places.values())

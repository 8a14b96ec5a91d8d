"""The picture of a comparison: differences with their 95 % intervals, drawn by matplotlib."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from mergekit_wise.analysis.contrast import Contrast
from mergekit_wise.report.contrast_tables import Compared
from mergekit_wise.report.figure_style import COLOURS, GREY
from mergekit_wise.report.figures import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, LARGEST = 0.28, 12.0
"""Inches for a row, and for all rows."""


def contrast_figure(found: Sequence[Compared], names: Sequence[str], title: str) -> "Figure":
    """A row for each data set and average: the difference in points with its interval, filled if it is significant.

    Args:
        found: the models that are compared with the same one, each in the same columns.
        names: of these models, for the legend.
        title: what the differences are.
    """
    with drawing():
        from mergekit_wise.report.new_figure import new_figure

        columns = [each.column for each in found[0].columns]
        figure = new_figure((6.4, min(LARGEST, 1.4 + ROW * max(len(columns), len(columns) * len(found) / 2))))
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=0.8)
        for number, (compared, name) in enumerate(zip(found, names, strict=True)):
            colour, lift = COLOURS[number % len(COLOURS)], (number + 1) / (len(found) + 1) - 0.5
            for row, one in enumerate(compared.columns):
                _draw(axes, one, row + lift, colour, name if not row else None)
        axes.set_yticks(range(len(columns)), [column.replace("$", r"\$") for column in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        axes.set_xlabel("Difference (points); filled: significant")
        axes.set_title(title.replace("$", r"\$"), fontsize=9)
        axes.grid(axis="x", alpha=0.25)
        if len(found) > 1:
            axes.legend(fontsize=7)
        figure.draw_without_rendering()  # makes what is made late with these settings, too
    return figure


def _draw(axes: "Axes", one: Contrast, height: float, colour: str, label: str | None) -> None:
    value, low, high = (100 * number for number in (one.difference.value, one.difference.low, one.difference.high))
    if not isnan(low):
        axes.plot([low, high], [height, height], color=colour, linewidth=1)
    filled = colour if one.significant else "white"
    text = None if label is None else label.replace("$", r"\$")
    axes.plot([value], [height], "o", color=colour, markerfacecolor=filled, markersize=4.5, label=text)

"""Plots as a figure of matplotlib: one, or several with one legend. Nothing overlaps: texts are measured and fitted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mergekit_wise.report.figure_legend import draw_legend
from mergekit_wise.report.figure_style import Style
from mergekit_wise.report.panel import POINTS, draw_panel, label_alphas, thin_ticks
from mergekit_wise.report.plots import Plot
from mergekit_wise.report.text_fitting import literal, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cells = tuple[int, int, int, int]
"""A panel's place in a grid: row, column, and how many rows and columns it spans."""

MARGIN = 4.0
"""Points between a text and the edge of its panel."""


def panels_figure(
    plots: Sequence[Plot], size: tuple[float, float], places: Mapping[int, Cells], style: Style
) -> "Figure":
    """A figure of several plots with one legend below.

    Args:
        plots: the first one has a label on its vertical axis. Each other one has that as its title, for which a row of
            small panels has more room.
        size: in inches.
        places: for each plot, by its number, the cells of a grid that it spans.
        style: sizes of texts, lines and symbols.
    """
    from matplotlib.gridspec import GridSpec

    from mergekit_wise.report.new_figure import new_figure

    figure = new_figure(size)
    rows = max(row + high for row, _, high, _ in places.values())
    columns = max(column + wide for _, column, _, wide in places.values())
    grid = GridSpec(rows, columns, figure=figure)
    room = size[0] * POINTS / columns, size[1] * POINTS / rows
    is_shared = len({plot.x_label for plot in plots}) == 1
    every = []
    for number, plot in enumerate(plots):
        row, column, high, wide = places[number]
        axes = figure.add_subplot(grid[row : row + high, column : column + wide])
        draw_panel(axes, plot, style)
        lowest = not any(
            below >= row + high and left < column + wide and column < left + across
            for below, left, _, across in places.values()
        )
        _name_axes(
            axes,
            plot,
            style,
            (room[0] * wide, room[1] * high),
            is_first=number == 0,
            has_x_label=lowest or not is_shared,
        )
        every.append(axes)
    draw_legend(figure, plots, style)
    figure.draw_without_rendering()  # settles the layout
    figure.set_layout_engine("none")
    for axes, plot in zip(every, plots, strict=True):
        thin_ticks(axes)
        label_alphas(axes, plot, style)
    return figure


def _name_axes(
    axes: Any, plot: Plot, style: Style, room: tuple[float, float], *, is_first: bool, has_x_label: bool
) -> None:
    """Give a panel its texts; `room` is its width and height in points, with the ticks."""
    across, up = room[0] - 4 * style.ticks - MARGIN, room[1] - 6 * style.ticks - MARGIN
    if has_x_label:
        axes.set_xlabel(literal(wrapped(plot.x_label, across, style.text)), fontsize=style.text, labelpad=2)
    title = plot.title
    if is_first:
        axes.set_ylabel(literal(wrapped(plot.y_label, up, style.text)), fontsize=style.text, labelpad=2)
        title = "" if plot.y_label.startswith(plot.title) else title
    elif plot.y_label.startswith(plot.title):
        title = plot.y_label
    if title:
        axes.set_title(literal(wrapped(title, across, style.text)), fontsize=style.text, pad=3)

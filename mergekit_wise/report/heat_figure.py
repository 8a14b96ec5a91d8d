"""A heat map as a figure of matplotlib. Knows nothing of files; `figures` writes them."""

from typing import TYPE_CHECKING, Any

from mergekit_wise.report.heat_map import NUMBERED, HeatMap
from mergekit_wise.report.table import percent
from mergekit_wise.report.text_fitting import literal, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 72
"""Points per inch."""

TEXT = 9.0
"""Points of the size of texts."""


def heat_figure(drawn: HeatMap, size: tuple[float, float]) -> "Figure":
    """The figure; `size` in inches."""
    from mergekit_wise.report.new_figure import new_figure

    xs, ys = drawn.xs, drawn.ys
    figure = new_figure(size)
    axes = figure.add_subplot()
    shares = [[100 * drawn.shares.get((x, y), float("nan")) for x in xs] for y in ys]
    image = axes.imshow(shares, cmap="cividis", origin="lower", aspect="auto")
    room = (size[0] * POINTS * 0.7 / len(xs), size[1] * POINTS * 0.7 / len(ys))
    if room[0] >= NUMBERED[0] * 0.7 and room[1] >= NUMBERED[1] * 0.7:
        for (x, y), share in drawn.shares.items():
            colour = "black" if drawn.height(share) > 0.5 else "white"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
            axes.text(xs.index(x), ys.index(y), percent(share), **style)
    if drawn.recommended is not None and drawn.recommended in drawn.shares:
        corner = (xs.index(drawn.recommended[0]) - 0.5, ys.index(drawn.recommended[1]) - 0.5)
        _frame(axes, corner)
    for values, axis, space in ((xs, axes.xaxis, room[0] / 26), (ys, axes.yaxis, room[1] / 12)):
        step = max(1, round(1 / space + 0.49))
        axis.set_ticks(range(0, len(values), step), [f"{value:g}" for value in values[::step]])
    across, up = (0.7 * inches * POINTS for inches in size)
    axes.set_xlabel(literal(wrapped(drawn.x_label, across, TEXT)), fontsize=TEXT)
    axes.set_ylabel(literal(wrapped(drawn.y_label, up, TEXT)), fontsize=TEXT)
    axes.set_title(literal(wrapped(drawn.title, across, TEXT)), fontsize=TEXT)
    figure.colorbar(image, ax=axes)
    return figure


def _frame(axes: Any, corner: tuple[float, float]) -> None:
    """A frame around the recommended cell that is seen on dark and on bright colours."""
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 3.6), ("black", 1.8)):
        style: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False, "zorder": 5}
        axes.add_patch(Rectangle(corner, 1, 1, **style))

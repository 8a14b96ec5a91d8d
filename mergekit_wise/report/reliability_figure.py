"""The reliability diagram of one model before and after calibration, drawn by matplotlib."""

from typing import TYPE_CHECKING

from mergekit_wise.analysis import Calibration
from mergekit_wise.report.calibration_plots import means_of
from mergekit_wise.report.figure_style import COLOURS, GREY
from mergekit_wise.report.figures import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_figure(before: Calibration, after: Calibration, title: str) -> "Figure":
    """The share of right answers over the mean confidence of each bin; on the diagonal, the two are the same."""
    with drawing():
        from mergekit_wise.report.new_figure import new_figure

        figure = new_figure((4.4, 4.2))
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        for name, found, colour in (("before", before, COLOURS[1]), ("after", after, COLOURS[0])):
            if points := means_of(found.bins):
                x, y = ([100 * point[place] for point in points] for place in (0, 1))
                axes.plot(x, y, "-o", color=colour, markersize=3, linewidth=1.2, label=name)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("Confidence (%)")
        axes.set_ylabel("Right (%)")
        axes.set_title(title.replace("$", r"\$"), fontsize=10)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
        figure.draw_without_rendering()  # makes what is made late with these settings, too
    return figure

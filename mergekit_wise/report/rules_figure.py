"""The picture of rules: shifts against the reference, with the mixtures of one alpha, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.analysis import Estimate
from mergekit_wise.report.figure_style import COLOURS, GREY
from mergekit_wise.report.figures import drawing, require_drawable, save_figure
from mergekit_wise.report.rules_table import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_rules(curve: Sequence[Sequence[Estimate]], results: Sequence[Result], output: Path) -> None:
    """Write `rules_figure` to a file that ends in .png, .svg or .pdf. Raises OutputError if that cannot be done."""
    require_drawable(output)
    save_figure(rules_figure(curve, results), output)


def rules_figure(curve: Sequence[Sequence[Estimate]], results: Sequence[Result]) -> "Figure":
    """Each rule with the paired 95 % interval of its gain over its control, and the curve of single alphas.

    Args:
        curve: reference and shifts of mixtures of one alpha each, ascending.
        results: of rules; those without gains are controls, which lie on the curve.
    """
    with drawing():
        from mergekit_wise.report.new_figure import new_figure

        figure = new_figure((6.4, 5.2))
        axes = figure.add_subplot()
        x, y = ([100 * point[place].value for point in curve] for place in (0, 1))
        axes.plot(x, y, "-o", color=GREY, markersize=3, linewidth=1, label="one alpha, 0 to 1")
        rules = [each for each in results if each.gains]
        for number, each in enumerate(rules):
            places = [100 * value.value for value in each.values]
            below = [100 * (gain.value - gain.low) for gain in each.gains]
            above = [100 * (gain.high - gain.value) for gain in each.gains]
            axes.errorbar(
                places[0],
                places[1],
                xerr=[[below[0]], [above[0]]],
                yerr=[[below[1]], [above[1]]],
                fmt="sD^vPX"[number % 6],
                color=COLOURS[number % len(COLOURS)],
                markersize=6,
                capsize=2,
                linewidth=1,
                label=each.name,
            )
            control = [place - 100 * gain.value for place, gain in zip(places, each.gains, strict=True)]
            axes.plot(
                [control[0], places[0]], [control[1], places[1]], ":", color=COLOURS[number % len(COLOURS)], linewidth=1
            )
        axes.set_xlabel("Reference (%)")
        axes.set_ylabel("Average of the shifts (%)")
        axes.set_title("Rules, with the paired 95 % interval of their gain over the same size", fontsize=9)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
        figure.draw_without_rendering()  # makes what is made late with these settings, too
    return figure

"""What plots show in papers beyond the page: the line y = x, and a ring around the recommended mixture.

Knows plots and summaries; knows nothing of matplotlib.
"""

from collections.abc import Iterable
from dataclasses import replace

from mergekit_wise.report.comparison import SHIFTS
from mergekit_wise.report.plots import Guide, Plot, alpha_plots, difference_plots, scatter_plots
from mergekit_wise.report.scale import Scale, expit, inside, logit, logit_scale
from mergekit_wise.report.summary import Summary
from mergekit_wise.results import At

SEEN = 0.3
"""The part of the horizontal axis, from its low end, over which y = x should be inside the plot."""

STRETCH, HEADLINE_STRETCH = 2.0, 5.0
"""How many times as long the vertical axis may become for that: of a shift, and of the average of the shifts."""

RECOMMENDED = "recommended"


def headline_plots(summary: Summary) -> tuple[Plot, ...]:
    """The average of the shifts, then each shift, against the reference; without a reference, all columns along alpha.

    The recommended mixtures are ringed.
    """
    plots = scatter_plots(summary.comparison) or alpha_plots(summary.comparison)
    return ringed(plots, summary)


def every_plot(summary: Summary) -> tuple[Plot, ...]:
    """All plots of a report but maps of grids, with the recommended mixtures ringed."""
    comparison = summary.comparison
    return ringed((*scatter_plots(comparison), *alpha_plots(comparison), *difference_plots(comparison)), summary)


def ringed(plots: Iterable[Plot], summary: Summary) -> tuple[Plot, ...]:
    """The plots with a ring around the recommended mixture of each curve that has one."""
    chosen: dict[int, At] = {
        index: found.point.numbers[0]
        for index, (curve, found) in enumerate(zip(summary.comparison.curves, summary.recommendations, strict=True))
        if found is not None and not curve.is_grid
    }
    return tuple(
        replace(
            plot,
            traces=tuple(
                replace(trace, ringed=(chosen[trace.index], RECOMMENDED)) if trace.index in chosen else trace
                for trace in plot.traces
            ),
        )
        for plot in plots
    )


def with_diagonal(plot: Plot) -> Plot:
    """A plot against the reference with y = x, which needs a longer vertical axis if the shifts are much harder.

    If the axis would become too long, y = x is drawn only where it is inside without that.
    """
    if plot.kind != "scatter" or plot.x.kind != "logit" or plot.y.kind != "logit":
        return plot
    left, right = logit(plot.x.low), logit(plot.x.high)
    wanted = expit(left + SEEN * (right - left))
    most = HEADLINE_STRETCH if plot.column.name == SHIFTS else STRETCH
    y = plot.y if plot.y.low <= wanted <= plot.y.high else _stretched(plot.y, wanted, most)
    low, high = max(plot.x.low, y.low), min(plot.x.high, y.high)
    if low >= high:
        return plot
    return replace(plot, y=y, guides=(Guide("diagonal", None, ((low, low), (high, high))), *plot.guides))


def _stretched(scale: Scale, share: float, most: float) -> Scale:
    """A logit axis that also holds a share, or the same one if that would be more than `most` times as long."""
    low, high, at = logit(scale.low), logit(scale.high), logit(inside(share))
    if max(high, at) - min(low, at) > most * (high - low):
        return scale
    # Both ends were widened before.
    margin = (high - low) / 14
    return logit_scale((expit(min(low + margin, at)), expit(max(high - margin, at))))

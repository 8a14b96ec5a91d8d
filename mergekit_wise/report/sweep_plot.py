"""The picture of a sweep whose records are in memory: the plot that a report on the same records begins with."""

from collections.abc import Sequence
from dataclasses import replace

from mergekit_wise.analysis import Recommendation
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.heat_map import HeatMap, heat_maps
from mergekit_wise.report.paper_plots import ringed
from mergekit_wise.report.plots import Plot, scatter_plots
from mergekit_wise.report.summary import Summary
from mergekit_wise.results import Reading, Record, as_entry
from mergekit_wise.results.measurement import as_measurement


def sweep_plot(records: Sequence[Record], recommended: Recommendation) -> Plot | HeatMap | None:
    """The average of the shifts (or the only shift) against the reference, or the map of a grid; None without both.

    The recommended mixture is marked.
    """
    measurements = tuple(as_measurement("sweep", as_entry(record)) for record in records)
    comparison = compare(Reading(measurements, (), ()))[0]
    comparison = replace(comparison, curves=comparison.curves[:1])
    summary = Summary(comparison, (recommended,), ({},), ({},))
    if comparison.curves[0].is_grid:
        return next(iter(heat_maps(summary)), None)
    return next(iter(ringed(scatter_plots(comparison), summary)), None)

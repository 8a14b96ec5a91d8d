"""All data sets of a suite in one chart with one axis of results: which of them gain from mixing, and which lose.

Knows comparisons and plots; the chart itself is `overview_svg`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mergekit_wise.analysis.point import TOLERANCE
from mergekit_wise.report.comparison import SHIFTS, Column, Comparison, Curve
from mergekit_wise.report.figure_style import COLOURS
from mergekit_wise.report.page_tables import heading
from mergekit_wise.report.paper_plots import RECOMMENDED
from mergekit_wise.report.plots import Mark, Plot, Trace, marks_along, slug
from mergekit_wise.report.scale import Scale, alpha_scale, linear_scale, number_scale
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.svg import colour

DASHES = 4
"""Patterns of lines, one after the other for every four data sets: solid, dashed, dotted, both."""


BLACK = len(COLOURS) - 1
"""The place of black among the colours of figures."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The results of one curve on every data set along what was swept.

    Attributes:
        title: what is drawn, and of which model if there are several.
        x, y: the axes; `y` is the same for all curves of a comparison.
        x_label, y_label: what the axes show.
        lines: a trace for each data set, whose index is the data set's place.
        average: that of the shifts; None with fewer than two.
        curve: the name of the curve.
    """

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    lines: tuple[Trace, ...]
    average: Trace | None
    curve: str

    @property
    def traces(self) -> tuple[Trace, ...]:
        """All lines, the average last."""
        return (*self.lines, *([] if self.average is None else [self.average]))

    def style(self, trace: Trace) -> str:
        """The CSS classes of a line: its colour and its dashes; the average is thick."""
        return "average" if trace is self.average else f"{colour(trace.index)} dashes{trace.index // 4 % DASHES}"


def overview_plots(summary: Summary) -> tuple[Plot, ...]:
    """The same charts for files: without intervals, which would cover each other, with the recommended mixture ringed.

    The average is black, as no data set is that has its symbol.
    """
    comparison = summary.comparison
    chosen = zip(comparison.curves, summary.recommendations, strict=True)
    rings = {c.name: None if each is None or c.is_grid else (each.point.numbers[0], RECOMMENDED) for c, each in chosen}
    found = []
    for drawn in overviews(comparison):
        black = BLACK + len(COLOURS) * (len(drawn.lines) // len(COLOURS))
        traces = tuple(
            replace(
                trace,
                index=black if trace is drawn.average else trace.index,
                marks=tuple(replace(mark, y_interval=None) for mark in trace.marks),
                ringed=rings[drawn.curve],
            )
            for trace in drawn.traces
        )
        column = Column("all", drawn.title, "", "", {})
        name = f"{slug(comparison.suite)}-all-data-sets"
        found.append(
            Plot("alpha", name, drawn.title, column, drawn.x_label, drawn.y_label, drawn.x, drawn.y, traces, ())
        )
    return tuple(found)


def overviews(comparison: Comparison) -> tuple[Overview, ...]:
    """A chart for each curve with two or more mixtures on two or more data sets."""
    columns = [column for column in comparison.columns if column.role != "average"]
    average = next((column for column in comparison.columns if column.name == SHIFTS), None)
    found = []
    for curve in comparison.curves:
        if len(curve.mixtures) > 1:
            lines = tuple(trace for place, column in enumerate(columns) if (trace := _trace(place, curve, column)))
            last = None if average is None else _trace(len(columns), curve, average)
            if len(lines) > 1:
                found.append((curve, lines, last))
    heights = [mark.y for _, lines, _ in found for trace in lines for mark in trace.marks]
    title = "All data sets"
    return tuple(
        Overview(
            f"{title} of {curve.name}" if len(comparison.curves) > 1 else title,
            _axis(curve, (mark.x for trace in lines for mark in trace.marks)),
            linear_scale(heights),
            curve.symbol,
            f"{comparison.measure} (%)",
            lines,
            last,
            curve.name,
        )
        for curve, lines, last in found
    )


def _trace(place: int, curve: Curve, column: Column) -> Trace | None:
    """A curve's results in a column; None with fewer than two."""
    marks: tuple[Mark, ...] = marks_along(curve, column)
    if len(marks) < 2:
        return None
    return Trace(place, heading(column), marks, curve.has_ends, curve.symbol, curve.ends)


def _axis(curve: Curve, numbers: Iterable[float]) -> Scale:
    return number_scale(list(numbers)) if curve.swept == (TOLERANCE,) else alpha_scale(numbers)

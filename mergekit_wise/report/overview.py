"""All data sets of a suite in one chart with one axis of results: which of them gain from mixing, and which lose.

Knows comparisons and plots; the chart itself is `overview_svg`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mergekit_wise.analysis.point import TOLERANCE
from mergekit_wise.report.comparison import SHIFTS, Column, Comparison, Curve
from mergekit_wise.report.page_tables import heading
from mergekit_wise.report.plots import Mark, Trace, marks_along
from mergekit_wise.report.scale import Scale, alpha_scale, linear_scale, number_scale
from mergekit_wise.report.svg import colour

DASHES = 4
"""Patterns of lines, one after the other for every four data sets: solid, dashed, dotted, both."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The results of one curve on every data set along what was swept.

    Attributes:
        title: what is drawn, and of which model if there are several.
        x, y: the axes; `y` is the same for all curves of a comparison.
        x_label, y_label: what the axes show.
        lines: a trace for each data set, whose index is the data set's place.
        average: that of the shifts; None with fewer than two.
    """

    title: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    lines: tuple[Trace, ...]
    average: Trace | None

    @property
    def traces(self) -> tuple[Trace, ...]:
        """All lines, the average last."""
        return (*self.lines, *([] if self.average is None else [self.average]))

    def style(self, trace: Trace) -> str:
        """The CSS classes of a line: its colour and its dashes; the average is thick."""
        return "average" if trace is self.average else f"{colour(trace.index)} dashes{trace.index // 4 % DASHES}"


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

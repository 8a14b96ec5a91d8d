"""Which plots a report has, and what is where in each: the same for the page and for papers.

Knows comparisons; knows nothing of SVG and matplotlib.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mergekit_wise.analysis import Difference, Estimate
from mergekit_wise.analysis.point import DEFAULT, TOLERANCE
from mergekit_wise.report.baselines import baseline_points, drawn_against
from mergekit_wise.report.choices import differences_of
from mergekit_wise.report.comparison import SHIFTS, SYMBOLS, Column, Comparison, Curve
from mergekit_wise.report.per_image import per_image_level
from mergekit_wise.report.scale import (
    Scale,
    alpha_scale,
    linear_scale,
    logit_scale,
    number_scale,
    signed_scale,
)
from mergekit_wise.report.table import ENDPOINTS
from mergekit_wise.results import At

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point, and the intervals of its coordinates; None if an interval is unknown.

    `y_wide` is an interval that holds for all marks of a curve at once.

    `alpha` is its value of what was swept: a number, the numbers of a grid, or None for a model of unknown alpha.
    """

    alpha: At
    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None
    y_wide: Interval | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The marks of one curve by ascending alpha; `index` is the curve's place in the comparison.

    `has_ends` says whether the marks at 0 and 1 are the two models, `ends` what these are called, and `symbol` what was
    swept. `ringed` is the value of a mixture that figures for papers put a ring around, with what the ring means.
    """

    index: int
    name: str
    marks: tuple[Mark, ...]
    has_ends: bool = True
    symbol: str = "α"
    ends: Mapping[float, str] = field(default_factory=lambda: ENDPOINTS)
    ringed: tuple[At, str] | None = None

    @property
    def mixtures(self) -> tuple[Mark, ...]:
        """The marks that a line joins: those with one known value."""
        return tuple(mark for mark in self.marks if isinstance(mark.alpha, float))

    def role(self, mark: Mark) -> str:
        """The name of the model at a mark: zero-shot or fine-tuned; empty for a mixture."""
        return ENDPOINTS.get(mark.alpha, "") if self.has_ends and isinstance(mark.alpha, float) else ""

    def end(self, at: At) -> str:
        """What the model at one of the two ends is called; empty for a mixture."""
        return self.ends.get(at, "") if self.has_ends and isinstance(at, float) else ""

    @property
    def bands(self) -> tuple[tuple[Interval, ...], ...]:
        """The intervals along y that join to bands, the widest first; each has one for every mixture."""
        each = [[mark.y_wide for mark in self.mixtures], [mark.y_interval for mark in self.mixtures]]
        known = [tuple(interval for interval in band if interval is not None) for band in each]
        return tuple(band for band in known if len(band) == len(self.mixtures) > 1)


@dataclass(frozen=True, slots=True)
class Guide:
    """A line to compare with; `index` is that of the curve that it belongs to, or None.

    Kinds: "line" is straight between the zero-shot and the fine-tuned model; "outputs" is the output-space ensemble;
    "level" is a model of unknown alpha, or no difference; "per-image" is an alpha for each image; "baseline" is the
    accuracy expected of models without robustness interventions; "diagonal" is y = x, in figures for papers alone.
    """

    kind: Literal["line", "outputs", "level", "per-image", "baseline", "diagonal"]
    index: int | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot; `name` is suitable for a file. A plot of differences is along alpha, too."""

    kind: Literal["alpha", "difference", "scatter"]
    name: str
    title: str
    column: Column
    x_label: str
    y_label: str
    x: Scale
    y: Scale
    traces: tuple[Trace, ...]
    guides: tuple[Guide, ...]


def alpha_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Each column along each parameter of which some curve has two values, the headline first."""
    columns = dict.fromkeys((*comparison.headline, *comparison.columns))
    drawn = {curve.swept[0] for curve in comparison.curves if len(curve.mixtures) > 1}
    found = (_along(comparison, name, column) for name in comparison.swept if name in drawn for column in columns)
    return tuple(plot for plot in found if plot is not None)


def difference_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """The difference from alpha 0.5 along alpha, of the headline's columns that a sweep's choice compared."""
    found = [
        (index, curve, differences_of(comparison, curve.choice))
        for index, curve in enumerate(comparison.curves)
        if curve.choice is not None
    ]
    plots = []
    for column in comparison.headline:
        traces = tuple(
            Trace(index, curve.name, _marks_of_differences(of_columns[column.name]), ends=curve.ends)
            for index, curve, of_columns in found
            if column.name in of_columns
        )
        if traces:
            plots.append(_of_differences(comparison, column, traces))
    return tuple(plots)


def scatter_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """The average of the shifts, and each shift, against the reference; none without a reference."""
    reference = comparison.reference
    if reference is None:
        return ()
    columns = [c for c in comparison.columns if c.name == SHIFTS] + [c for c in comparison.columns if c.role == "shift"]
    found = (_against(comparison, reference, column) for column in columns)
    return tuple(plot for plot in found if plot is not None)


def _along(comparison: Comparison, swept: str, column: Column) -> Plot | None:
    """A column along one parameter; a model of unknown alpha is a level line."""
    traces: list[Trace] = []
    guides: list[Guide] = []
    for index, curve in enumerate(comparison.curves):
        results = [(alpha, curve.result(alpha, column)) for alpha in curve.alphas]
        found = [(alpha, result) for alpha, result in results if result is not None]
        marks = marks_along(curve, column) if curve.swept == (swept,) else ()
        traces.append(_trace(index, curve, marks))
        guides += [Guide("level", index, ((0.0, r.value), (1.0, r.value))) for a, r in found if a is None]
        guides += _guides(index, curve, column, marks)
        if marks and (level := per_image_level(curve, column)) is not None:
            guides.append(Guide("per-image", index, ((0.0, level), (1.0, level))))
    shown = [mark for trace in traces for mark in trace.marks]
    if not shown:
        return None
    heights = [y for mark in shown for y in (mark.y, *(mark.y_interval or ()))]
    names = {"": comparison.measure, "top-1": "Accuracy", "accuracy": "Accuracy", "score": "Score"}
    metric = names.get(column.metric, column.metric)
    return Plot(
        kind="alpha",
        name=f"{slug(comparison.suite)}-{slug(swept)}-{slug(column.name)}",
        title=column.title,
        column=column,
        x_label=SYMBOLS.get(swept, swept),
        y_label=f"{metric} (%)",
        x=number_scale([mark.x for mark in shown]) if swept == TOLERANCE else alpha_scale(mark.x for mark in shown),
        y=linear_scale([*heights, *(y for guide in guides for _, y in guide.points)]),
        traces=tuple(trace for trace in traces if trace.marks),
        guides=tuple(guides),
    )


def marks_along(curve: Curve, column: Column) -> tuple[Mark, ...]:
    """The results of a curve in a column along the one parameter that it varies."""
    results = [(alpha, curve.result(alpha, column)) for alpha in curve.mixtures]
    return tuple(Mark(a, a, r.value, None, _shown_interval(r)) for a, r in results if r is not None)


def _marks_of_differences(differences: Mapping[float, Difference]) -> tuple[Mark, ...]:
    """A mark for each alpha, and one for the default, which does not differ from itself."""
    marks = [
        Mark(alpha, alpha, value.value, None, (value.low, value.high), (wide.low, wide.high))
        for alpha, each in differences.items()
        for value, wide in [(each.difference, each.simultaneous)]
        if alpha != DEFAULT
    ]
    nothing = (0.0, 0.0)
    return tuple(sorted([*marks, Mark(DEFAULT, DEFAULT, 0.0, None, nothing, nothing)], key=lambda mark: mark.x))


def _of_differences(comparison: Comparison, column: Column, traces: tuple[Trace, ...]) -> Plot:
    marks = [mark for trace in traces for mark in trace.marks]
    x = alpha_scale(mark.x for mark in marks)
    return Plot(
        kind="difference",
        name=f"{slug(comparison.suite)}-difference-{slug(column.name)}",
        title=column.title,
        column=column,
        x_label="α",
        y_label=f"Difference from α = {DEFAULT} (points)",
        x=x,
        y=signed_scale(y for mark in marks for y in (*(mark.y_interval or ()), *(mark.y_wide or ()))),
        traces=traces,
        guides=(Guide("level", None, ((x.low, 0.0), (x.high, 0.0))),),
    )


def _guides(index: int, curve: Curve, column: Column, marks: Sequence[Mark]) -> Iterable[Guide]:
    """What the mixtures are compared with: the straight line between the two models, and the output-space ensemble."""
    models = [(mark.x, mark.y) for mark in marks if curve.has_ends and mark.alpha in (0.0, 1.0)]
    if len(models) < 2:
        return
    if len(marks) > 2:
        yield Guide("line", index, tuple(models))
    found = curve.findings.get(column.name)
    if found is not None and found.ensembles:
        yield Guide("outputs", index, tuple(sorted({**found.ensembles, **dict(models)}.items())))


def _against(comparison: Comparison, reference: Column, shift: Column) -> Plot | None:
    across, line = drawn_against(comparison, reference, shift)
    traces = [_trace(i, curve, _marks(curve, across, shift)) for i, curve in enumerate(comparison.curves)]
    shown = [mark for trace in traces for mark in trace.marks]
    if not shown:
        return None
    x = logit_scale(x for mark in shown for x in (mark.x, *(mark.x_interval or ())))
    guides = () if line is None else (Guide("baseline", None, baseline_points(line, x)),)
    heights = [y for mark in shown for y in (mark.y, *(mark.y_interval or ()))]
    return Plot(
        kind="scatter",
        name=f"{slug(comparison.suite)}-scatter-{slug(shift.name)}",
        title=shift.title,
        column=shift,
        x_label=f"{across.title} (%)",
        y_label=f"{shift.title} (%)",
        x=x,
        y=logit_scale([*heights, *(y for guide in guides for _, y in guide.points)]),
        traces=tuple(trace for trace in traces if trace.marks),
        guides=guides,
    )


def _marks(curve: Curve, reference: Column, shift: Column) -> tuple[Mark, ...]:
    pairs = ((alpha, curve.result(alpha, reference), curve.result(alpha, shift)) for alpha in curve.alphas)
    return tuple(_mark(alpha, x, y) for alpha, x, y in pairs if x is not None and y is not None)


def _trace(index: int, curve: Curve, marks: tuple[Mark, ...]) -> Trace:
    return Trace(index, curve.name, marks, curve.has_ends, curve.symbol, curve.ends)


def _mark(alpha: At, x: Estimate, y: Estimate) -> Mark:
    return Mark(alpha, x.value, y.value, _shown_interval(x), _shown_interval(y))


def _shown_interval(result: Estimate) -> Interval | None:
    return None if math.isnan(result.low) else (max(result.low, 0.0), min(result.high, 1.0))


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "unnamed"

"""Which plots there are, and what stands where in each: for a page and for papers alike.

Knows comparisons; knows nothing of SVG and matplotlib.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mergekit_wise.analysis import Baseline, Estimate
from mergekit_wise.report.baseline import baseline
from mergekit_wise.report.comparison import SHIFTS, Column, Comparison, Curve
from mergekit_wise.report.scale import Scale, alpha_scale, expit, linear_scale, logit, logit_scale

BENDS = 12
"""Pieces that a baseline is drawn in."""

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point, and the intervals of its coordinates, None where there is none."""

    alpha: float | None
    x: float
    y: float
    across: Ends | None
    up: Ends | None


@dataclass(frozen=True, slots=True)
class Trace:
    """The marks of one curve, by ascending alpha; `index` is the curve's place in the comparison."""

    index: int
    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Guide:
    """A line to judge by; `index` is that of a curve, None for a line that is nobody's.

    Kinds: "line" is straight between the ends of a curve; "outputs" is what mixing the outputs of the ends achieves;
    "level" is a model whose alpha nobody knows; "baseline" is what models without robustness reach.
    """

    kind: Literal["line", "outputs", "level", "baseline"]
    index: int | None
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot; `name` is good for a file."""

    kind: Literal["alpha", "scatter"]
    name: str
    column: Column
    x_label: str
    y_label: str
    x: Scale
    y: Scale
    traces: tuple[Trace, ...]
    guides: tuple[Guide, ...]


def alpha_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """Each column along alpha, the headline first; none where no curve has two alphas."""
    if all(len(curve.mixtures) < 2 for curve in comparison.curves):
        return ()
    columns = dict.fromkeys((*comparison.headline, *comparison.columns))
    found = (_along(comparison, column) for column in columns)
    return tuple(panel for panel in found if panel is not None)


def scatter_panels(comparison: Comparison) -> tuple[Panel, ...]:
    """The reference against the average of the shifts, and against each of them; none without a reference."""
    reference = comparison.reference
    if reference is None:
        return ()
    columns = [c for c in comparison.columns if c.name == SHIFTS] + [c for c in comparison.columns if c.role == "shift"]
    found = (_against(comparison, reference, column) for column in columns)
    return tuple(panel for panel in found if panel is not None)


def _along(comparison: Comparison, column: Column) -> Panel | None:
    traces, guides = [], []
    for index, curve in enumerate(comparison.curves):
        results = [(alpha, curve.result(alpha, column)) for alpha in curve.alphas]
        found = [(alpha, result) for alpha, result in results if result is not None]
        marks = tuple(Mark(a, a, r.value, None, _ends(r)) for a, r in found if a is not None)
        traces.append(Trace(index, curve.name, marks))
        guides += [Guide("level", index, ((0.0, r.value), (1.0, r.value))) for a, r in found if a is None]
        guides += _beside(index, curve, column, marks)
    shown = [mark for trace in traces for mark in trace.marks]
    if not shown:
        return None
    shares = [y for mark in shown for y in (mark.y, *(mark.up or ()))] + [
        y for guide in guides for _, y in guide.points
    ]
    return Panel(
        kind="alpha",
        name=f"{_word(comparison.suite)}-alpha-{_word(column.name)}",
        column=column,
        x_label="α",
        y_label=f"{_metric(column)} (%)",
        x=alpha_scale(mark.x for mark in shown),
        y=linear_scale([*shares, *(y for guide in guides for _, y in guide.points)]),
        traces=tuple(trace for trace in traces if trace.marks),
        guides=tuple(guides),
    )


def _beside(index: int, curve: Curve, column: Column, marks: Sequence[Mark]) -> Iterable[Guide]:
    """What the mixtures are to be compared with: the straight line between the ends, and the mixed outputs."""
    ends = [(mark.x, mark.y) for mark in marks if mark.alpha in (0.0, 1.0)]
    if len(ends) < 2:
        return
    if len(marks) > 2:
        yield Guide("line", index, tuple(ends))
    found = curve.findings.get(column.name)
    if found is not None and found.ensembles:
        yield Guide("outputs", index, tuple(sorted({**found.ensembles, **dict(ends)}.items())))


def _against(comparison: Comparison, across: Column, up: Column) -> Panel | None:
    traces = [Trace(i, curve.name, _pairs(curve, across, up)) for i, curve in enumerate(comparison.curves)]
    shown = [mark for trace in traces for mark in trace.marks]
    if not shown:
        return None
    x = logit_scale(x for mark in shown for x in (mark.x, *(mark.across or ())))
    guides = _expected(baseline(comparison.lines, across, up), x)
    heights = [y for mark in shown for y in (mark.y, *(mark.up or ()))]
    return Panel(
        kind="scatter",
        name=f"{_word(comparison.suite)}-scatter-{_word(up.name)}",
        column=up,
        x_label=f"{across.title} (%)",
        y_label=f"{up.title} (%)",
        x=x,
        y=logit_scale([*heights, *(y for guide in guides for _, y in guide.points)]),
        traces=tuple(trace for trace in traces if trace.marks),
        guides=guides,
    )


def _expected(line: Baseline | None, x: Scale) -> tuple[Guide, ...]:
    """The baseline over the whole of an axis."""
    if line is None:
        return ()
    a, b = logit(x.low), logit(x.high)
    places = [expit(a + (b - a) * step / BENDS) for step in range(BENDS + 1)]
    return (Guide("baseline", None, tuple((p, float(line.expected(p))) for p in places)),)


def _pairs(curve: Curve, across: Column, up: Column) -> tuple[Mark, ...]:
    pairs = ((alpha, curve.result(alpha, across), curve.result(alpha, up)) for alpha in curve.alphas)
    return tuple(Mark(a, x.value, y.value, _ends(x), _ends(y)) for a, x, y in pairs if x is not None and y is not None)


def _ends(result: Estimate) -> Ends | None:
    return None if math.isnan(result.low) else (max(result.low, 0.0), min(result.high, 1.0))


def _metric(column: Column) -> str:
    return {"": "Accuracy", "top-1": "Accuracy"}.get(column.metric, column.metric)


def _word(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60] or "unnamed"

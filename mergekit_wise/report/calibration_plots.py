"""Reliability diagrams, and calibration errors along alpha, for the page: what is where, in numbers and in words.

Knows comparisons; knows nothing of SVG.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mergekit_wise.analysis import Bins
from mergekit_wise.analysis.calibration import averaged, pooled
from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.scale import Scale, alpha_scale, linear_scale
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.table import percent
from mergekit_wise.results import At

REFERENCE, SHIFTS = "reference", "shift"
PARTS = {REFERENCE: "reference", SHIFTS: "shifts"}
"""What the data sets of a role are called."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined in their order; `index` gives the colour, and dashed lines are those of the shifts."""

    index: int
    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """Lines in a square of two axes; `description` says the same in words, and `diagonal` draws y = x."""

    title: str
    description: str
    x_label: str
    y_label: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    diagonal: bool = False

    def text(self, x: float, y: float) -> str:
        """A point in words: what was swept with its ECE or NLL, or a confidence with the share of right answers."""
        if self.diagonal:
            return f"confidence {percent(x)} %, right {percent(y)} %"
        value = f"{percent(y)} %" if "%" in self.y_label else f"{y:.3f} nats"
        return f"{self.x_label} = {x:g}: {self.title} {value}"


def calibration_diagrams(summary: Summary) -> tuple[Diagram, ...]:
    """ECE and NLL along alpha, then the reliability diagrams of each curve that was swept; none without calibration."""
    found: list[Diagram] = []
    swept = ", ".join(dict.fromkeys(c.symbol for c in summary.comparison.curves if len(c.mixtures) > 1))
    for name, unit, scale in (("ece", "%", linear_scale), ("nll", "nats", alpha_scale)):
        lines = tuple(_along_alpha(summary.comparison, name))
        if lines:
            factor, digits = (100, 1) if unit == "%" else (1, 3)
            where = "alpha" if swept == "α" else swept
            words = " ".join(
                f"{line.name}: "
                + ", ".join(f"{factor * y:.{digits}f} {unit} at {where} {x:g}" for x, y in _shown(line.points))
                + "."
                for line in lines
            )
            y = scale([0.0, *(y for line in lines for _, y in line.points)])
            x = alpha_scale(x for line in lines for x, _ in line.points)
            found.append(Diagram(name.upper(), words, swept, f"{name.upper()} ({unit})", x, y, lines))
    for curve, chosen in zip(summary.comparison.curves, summary.recommendations, strict=True):
        middle = 0.5 if chosen is None or curve.is_grid else chosen.point.numbers[0]
        for role in PARTS:
            found += _reliability(summary.comparison, curve, role, middle)
    return tuple(found)


def _along_alpha(comparison: Comparison, name: str) -> Iterable[Line]:
    several = len(comparison.curves) > 1
    for index, curve in enumerate(comparison.curves):
        for role, part in PARTS.items():
            values = [(alpha, average_of(comparison, curve, alpha, role, name)) for alpha in curve.mixtures]
            points = tuple((alpha, value) for alpha, value in values if value is not None)
            if len(points) > 1:
                what = "reference" if role == REFERENCE else "average of the shifts"
                yield Line(index, f"{curve.name}, {what}" if several else what, points, dashed=part == "shifts")


def average_of(comparison: Comparison, curve: Curve, alpha: At, role: str, name: str) -> float | None:
    """A calibration number, averaged over the data sets of a role; None if one of them lacks it."""
    rows = [curve.rows.get((alpha, column)) for column in _columns(comparison, role)]
    return averaged([{} if row is None else row.calibration for row in rows], name)


def _columns(comparison: Comparison, role: str) -> tuple[str, ...]:
    if role == SHIFTS:
        return comparison.averaged
    return () if comparison.reference is None else (comparison.reference.name,)


def _reliability(comparison: Comparison, curve: Curve, role: str, middle: float) -> Iterable[Diagram]:
    """The diagram of the two models and of the mixture between them; none if no bins are known."""
    lines, words = [], []
    alphas = [alpha for alpha in dict.fromkeys((0.0, middle, 1.0)) if alpha in curve.mixtures]
    for index, alpha in enumerate(alphas if len(curve.mixtures) > 1 else ()):
        rows = [curve.rows.get((alpha, column)) for column in _columns(comparison, role)]
        bins = pooled(() if row is None else row.reliability for row in rows)
        points = means_of(bins)
        if points:
            name = (curve.ends.get(alpha) if curve.has_ends else None) or f"{curve.symbol} = {alpha:g}"
            lines.append(Line(index, name, points))
            confidence, right = (sum(row[place] for row in bins) / sum(row[0] for row in bins) for place in (2, 1))
            words.append(f"{name}: mean confidence {100 * confidence:.1f} %, right {100 * right:.1f} %.")
    if lines:
        who = f"{curve.name}: " if len(comparison.curves) > 1 else ""
        sets = len(_columns(comparison, role))
        what = "reference" if role == REFERENCE else "shift" if sets == 1 else f"{sets} shifts together"
        share = linear_scale([0.0, 1.0])
        yield Diagram(
            f"{who}Reliability, {what}",
            " ".join(words),
            "Confidence (%)",
            "Right (%)",
            share,
            share,
            tuple(lines),
            diagonal=True,
        )


def means_of(bins: Bins) -> tuple[tuple[float, float], ...]:
    """Mean confidence and share of right answers of each bin that holds an image."""
    return tuple((confidences / images, right / images) for images, right, confidences in bins if images)


def _shown(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The first, the lowest and the last of some points, each once."""
    return list(dict.fromkeys((points[0], min(points, key=lambda point: point[1]), points[-1])))

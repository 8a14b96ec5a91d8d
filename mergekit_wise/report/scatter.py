"""The paper's picture: accuracy on the reference against accuracy under shift, on logit axes (its Figure 1).

Knows candidates only; writes one PNG, SVG or PDF.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mergekit_wise.analysis import Candidate
from mergekit_wise.checkpoint import require_folder
from mergekit_wise.errors import OutputError
from mergekit_wise.report.scale import Scale, inside, logit_scale

CLEARANCE = 24
"""Pixels between two points that both get a label."""

Point = tuple[float, float]
COLOURS = {"zero-shot": "#2563eb", "fine-tuned": "#dc2626", "mixture": "#6b7280", "recommended": "#059669"}


KINDS = (".png", ".svg", ".pdf")


def require_drawable(output: Path) -> None:
    """Raise OutputError now if `output` has no kind of picture, or lies in no folder."""
    if output.suffix.lower() not in KINDS:
        raise OutputError(f"{output}: expected a name that ends in {', '.join(KINDS)}.")
    require_folder(output)


def draw_scatter(candidates: Sequence[Candidate], recommended: float, output: Path) -> None:
    """Draw one point for each alpha, with 95 % intervals, and mark the ends and `recommended`.

    Raises OutputError if the picture cannot be written, or if there is nothing to draw against something else.
    """
    if not (candidates[0].has_reference and candidates[0].shifts):
        raise OutputError(f"{output}: the plot needs a reference and a shift, and one of the two was not measured.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(inside(c.reference_accuracy), inside(c.shift_accuracy)) for c in candidates]
    axes.plot(*zip(*points, strict=True), color=COLOURS["mixture"], linewidth=1.2, zorder=2)
    for candidate, point in zip(candidates, points, strict=True):
        _draw_interval(axes, candidate, point)
        _draw_point(axes, candidate.alpha, point, candidate.alpha == recommended)
    _scale(axes, candidates)
    _name_points(axes, candidates, points)
    axes.set_xlabel("Accuracy on the reference (%)")
    axes.set_ylabel(f"Average accuracy on {len(candidates[0].shifts)} shifts (%)")
    axes.set_title("Mixing zero-shot and fine-tuned weights", fontsize=11)
    axes.legend(loc="best", frameon=False, fontsize=9)
    try:
        figure.savefig(output)
    except OSError as error:
        raise OutputError(f"{output}: the plot cannot be written: {error.strerror}.") from error


def _draw_interval(axes: Any, candidate: Candidate, point: Point) -> None:
    """Bars for the intervals of the reference and of the average of the shifts."""
    reference, shifts = candidate.measured[0], candidate.shift_average
    left, right = inside(reference.low), inside(reference.high)
    low, high = inside(shifts.low), inside(shifts.high)
    style = {"color": "#d1d5db", "linewidth": 1, "zorder": 1}
    axes.plot([left, right], [point[1]] * 2, **style)
    axes.plot([point[0]] * 2, [low, high], **style)


def _draw_point(axes: Any, alpha: float, point: Point, recommended: bool) -> None:
    role = {0.0: "zero-shot", 1.0: "fine-tuned"}.get(alpha, "mixture")
    labelled = role != "mixture"
    if recommended:
        axes.scatter(
            *point,
            s=130,
            facecolors="none",
            edgecolors=COLOURS["recommended"],
            linewidths=1.8,
            label=f"recommended (α = {alpha:g})",
            zorder=4,
        )
    axes.scatter(
        *point,
        s=58 if labelled else 26,
        color=COLOURS[role],
        marker={"zero-shot": "s", "fine-tuned": "D"}.get(role, "o"),
        label=f"{role} (α = {alpha:g})" if labelled else None,
        zorder=3,
    )


def _name_points(axes: Any, candidates: Sequence[Candidate], points: Sequence[Point]) -> None:
    """Alphas beside the mixtures, on the outer side of the curve, as many as do not crowd each other."""
    places = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    taken = [places[0], places[-1]]
    for index in range(1, len(points) - 1):
        if min(math.dist(places[index], other) for other in taken) <= CLEARANCE:
            continue
        taken.append(places[index])
        across, up = _outwards(places[index - 1], places[index + 1])
        axes.annotate(
            f"{candidates[index].alpha:g}",
            points[index],
            xytext=(12 * across, 12 * up),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=COLOURS["mixture"],
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def _outwards(before: Point, after: Point) -> Point:
    """Direction, of length 1, to the left of the way from one point to another."""
    across, up = after[0] - before[0], after[1] - before[1]
    length = math.hypot(across, up) or 1.0
    return -up / length, across / length


def _scale(axes: Any, candidates: Sequence[Candidate]) -> None:
    """Logit axes that just hold the intervals, with ticks in per cent."""
    axis: Literal["x", "y"]
    for axis, results in (
        ("x", [c.measured[0] for c in candidates]),
        ("y", [c.shift_average for c in candidates]),
    ):
        fit_axis(axes, axis, logit_scale(end for result in results for end in (result.low, result.high)))
    axes.grid(color="#eef0f3", zorder=0)


def fit_axis(axes: Any, axis: Literal["x", "y"], scale: Scale) -> None:
    """Give an axis of a plot the range and the ticks of a scale."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    getattr(axes, f"set_{axis}scale")(scale.kind)
    getattr(axes, f"set_{axis}lim")(scale.low, scale.high)
    ruler = getattr(axes, f"{axis}axis")
    ruler.set_major_locator(FixedLocator(list(scale.ticks)))
    ruler.set_major_formatter(FixedFormatter(list(scale.labels)))
    ruler.set_minor_locator(NullLocator())

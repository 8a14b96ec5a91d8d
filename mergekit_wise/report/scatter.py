"""The paper's picture: accuracy on the reference against accuracy under shift, on logit axes (its Figure 1).

Knows candidates only; writes one PNG.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergekit_wise.analysis import Candidate, clopper_pearson
from mergekit_wise.errors import OutputError

TICKS = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 65, 70, 75, 80, 85, 90, 95, 97, 98, 99, 99.5, 99.9)
EDGE = 0.0005
"""An accuracy of 0 or 1 has no logit: it is drawn this far inside."""

CLEARANCE = 24
"""Pixels between two points that both get a label."""

Point = tuple[float, float]
COLOURS = {"zero-shot": "#2563eb", "fine-tuned": "#dc2626", "mixture": "#6b7280", "recommended": "#059669"}


def draw_scatter(candidates: Sequence[Candidate], recommended: float, output: Path) -> None:
    """Draw one point for each alpha, with 95 % intervals, and mark the ends and `recommended`.

    Raises OutputError if the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(_inside(c.reference_accuracy), _inside(c.shift_accuracy)) for c in candidates]
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


def _inside(share: float) -> float:
    return min(max(share, EDGE), 1 - EDGE)


def _draw_interval(axes: Any, candidate: Candidate, point: Point) -> None:
    """Bars for the reference's interval, and for that of the pooled shifts."""
    left, right = map(_inside, clopper_pearson(*candidate.reference))
    low, high = map(_inside, clopper_pearson(*candidate.pooled_shifts))
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
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for axis, counts in (
        ("x", [c.reference for c in candidates]),
        ("y", [c.pooled_shifts for c in candidates]),
    ):
        ends = [_inside(end) for count in counts for end in clopper_pearson(*count)]
        low, high = _widened(min(ends), max(ends))
        ticks = [tick for tick in TICKS if low <= tick / 100 <= high]
        getattr(axes, f"set_{axis}scale")("logit")
        getattr(axes, f"set_{axis}lim")(low, high)
        ruler = getattr(axes, f"{axis}axis")
        ruler.set_major_locator(FixedLocator([tick / 100 for tick in ticks]))
        ruler.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
        ruler.set_minor_locator(NullLocator())
    axes.grid(color="#eef0f3", zorder=0)


def _widened(low: float, high: float) -> Point:
    """The range and a twelfth more on either side, on the logit scale."""
    from scipy.special import expit, logit

    a, b = float(logit(low)), float(logit(high))
    room = max((b - a) / 12, 0.05)
    return float(expit(a - room)), float(expit(b + room))

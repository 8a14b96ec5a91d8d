"""A baseline of one's own: a line through models' accuracies. Knows points, not where they come from."""

from collections.abc import Sequence

import numpy as np

from mergekit_wise.analysis.baseline_table import Point
from mergekit_wise.analysis.robustness import Axis, Baseline, Numbers, to_axis
from mergekit_wise.errors import ResultsError

FEWEST = 3
"""Models that a line needs at the least: through two points every line fits."""


def fit_baseline(
    points: Sequence[Point],
    axis: Axis = "logit",
    bootstrap: int = 1000,
    seed: int = 0,
    *,
    images: int = 10_000,
    shift: str = "",
    reference: str = "",
    source: str = "",
) -> Baseline:
    """The least-squares line through `points` on the axis, with 95 % percentile intervals over resampled models.

    Args:
        points: at least three models with two different accuracies on the reference.
        axis: logit (the paper) or probit (Taori et al., Miller et al.).
        bootstrap: how many times the models are drawn again; 0 for no intervals.
        seed: of the draws: the same points and seed give the same intervals.
        images: an accuracy nearer to 0 or 1 than half an image of so many is moved there, so that it has a place.
        shift: what the line predicts, as it is to be called.
        reference: what it predicts that from.
        source: where the points come from.

    Raises:
        ResultsError: too few models, all of the same accuracy, or accuracies outside [0, 1].
    """
    _require_accuracies(points, shift)
    x = to_axis([point.reference for point in points], axis, images)
    _require_spread(x, shift)
    y = to_axis([point.shift for point in points], axis, images)
    a, b = map(float, _lines(x, y))
    left = float(np.sum((y - a * x - b) ** 2))
    spread = float(np.sum((y - y.mean()) ** 2))
    r2 = 1 - left / spread if spread else None
    drawn = np.random.default_rng(seed).integers(0, len(x), (bootstrap, len(x)))
    # Draws of one model alone, or of models of one accuracy, have no line.
    drawn = drawn[np.ptp(x[drawn], axis=1) > 0] if bootstrap else drawn
    slopes, intercepts = _lines(x[drawn], y[drawn])
    return Baseline(
        a,
        b,
        r2,
        axis,
        shift,
        reference,
        len(points),
        source,
        _interval(slopes),
        _interval(intercepts),
        tuple(zip(slopes.tolist(), intercepts.tolist(), strict=True)),
    )


def _lines(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Slope and intercept of the least-squares line through the last axis: [..., N] -> [...]."""
    middle_x, middle_y = x.mean(-1, keepdims=True), y.mean(-1, keepdims=True)
    slope = ((x - middle_x) * (y - middle_y)).sum(-1) / ((x - middle_x) ** 2).sum(-1)
    return slope, middle_y[..., 0] - slope * middle_x[..., 0]


def _interval(draws: Numbers) -> tuple[float, float] | None:
    if not len(draws):
        return None
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _require_accuracies(points: Sequence[Point], shift: str) -> None:
    wrong = [point for point in points if not (0 <= point.reference <= 1 and 0 <= point.shift <= 1)]
    if wrong:
        raise ResultsError(f"{_what(shift)} needs accuracies from 0 to 1; {wrong[0].name} has others.")


def _require_spread(x: Numbers, shift: str) -> None:
    if len(x) < FEWEST or np.ptp(x) == 0:
        raise ResultsError(
            f"{_what(shift)} needs at least {FEWEST} models, not all of the same accuracy on the reference; found "
            f"{len(x)}. Add models to the table."
        )


def _what(shift: str) -> str:
    return f"The baseline of {shift}" if shift else "A baseline"

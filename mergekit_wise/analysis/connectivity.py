"""Whether accuracy stays high between the two models (the paper, section 5.2). Knows numbers only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.estimate import Estimate, combined
from mergekit_wise.analysis.paired import Contrasts, Evidence
from mergekit_wise.analysis.point import Point as Place
from mergekit_wise.errors import ResultsError

Point = tuple[float, Estimate, int]
"""Alpha, result, number of images."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Whether an observation holds, at which alpha it was decided, and by which margin.

    `margin` is negative if the observation fails.
    """

    holds: bool
    alpha: float
    margin: Estimate

    @property
    def significant(self) -> bool:
        """Whether the margin's 95 % interval excludes zero."""
        return self.margin.low > 0 or self.margin.high < 0


@dataclass(frozen=True, slots=True)
class Connectivity:
    """The two observations on one data set.

    Attributes:
        first: accuracy is nowhere below the line between the two models; its margin is that of the lowest mixture
            relative to the line.
        second: some mixture is at least as good as the better model; its margin is that of the best mixture.
    """

    first: Observation
    second: Observation


def connectivity(points: Sequence[Point], evidence: Evidence | None = None) -> Connectivity:
    """Linear mode connectivity, observations 1 and 2 of the paper's section 5.2, on one data set, in its own metric.

    1. Acc(theta_alpha) >= (1 - alpha) Acc(theta_0) + alpha Acc(theta_1) for all alpha.
    2. Acc(theta_alpha) >= max(Acc(theta_0), Acc(theta_1)) for some alpha strictly between 0 and 1 (with the models
       themselves it would always hold).

    Whether they hold is decided by the numbers themselves. With evidence, the intervals of the margins come from
    resamples of the images and hold for all mixtures at once, because the worst or the best one was chosen. Without,
    they treat the results as independent although they are of the same images, which makes them wide, and do not
    account for that choice.

    Args:
        points: alpha, result and number of images of each; alphas outside [0, 1] are ignored.
        evidence: of one column, with a mixture for each of the points, in their order.

    Raises:
        ResultsError: alpha 0, alpha 1 or any alpha in between is missing, an alpha occurs twice, or totals differ.
    """
    _require_complete(points)
    found = {alpha: result for alpha, result, _ in points}
    inner = sorted(alpha for alpha in found if 0 < alpha < 1)
    above_line = {
        alpha: combined([(1.0, found[alpha]), (-(1 - alpha), found[0.0]), (-alpha, found[1.0])]) for alpha in inner
    }
    lowest = min(inner, key=lambda alpha: (above_line[alpha].value, alpha))
    best = max(inner, key=lambda alpha: (found[alpha].value, Place.of_alpha(alpha).nearness))
    better = max((0.0, 1.0), key=lambda alpha: found[alpha].value)
    margin, gain = above_line[lowest], combined([(1, found[best]), (-1, found[better])])
    if evidence is not None:
        rows = {alpha: row for row, (alpha, _, _) in enumerate(points)}
        margin = _margins(evidence, rows, inner).simultaneous(inner.index(lowest), range(len(inner)))
        gains = evidence.contrasts(0, rows[better])
        gain = gains.simultaneous(rows[best], [rows[alpha] for alpha in inner])
    # Rounding may put a mixture on the line slightly below it; a real difference is at least one image.
    tolerance = 1e-6 / points[0][2]
    return Connectivity(
        Observation(all(each.value >= -tolerance for each in above_line.values()), lowest, margin),
        Observation(found[best].value >= found[better].value, best, gain),
    )


def _margins(evidence: Evidence, rows: Mapping[float, int], inner: Sequence[float]) -> Contrasts:
    """How far each mixture lies above the line between the two models."""
    alphas, mixtures = np.array(inner), [rows[alpha] for alpha in inner]

    def above(values: NDArray[np.floating]) -> NDArray[np.floating]:
        line = (1 - alphas) * values[..., [rows[0.0]]] + alphas * values[..., [rows[1.0]]]
        margins: NDArray[np.floating] = values[..., mixtures] - line
        return margins

    draws = above(evidence.draws[0]).astype(np.float32)
    return Contrasts(above(evidence.values[0]).astype(np.float64), draws, float(evidence.steps[0]), None)


def _require_complete(points: Sequence[Point]) -> None:
    alphas = [alpha for alpha, _, _ in points]
    missing = [name for end, name in ((0.0, "0 (zero-shot)"), (1.0, "1 (fine-tuned)")) if end not in alphas]
    if missing:
        raise ResultsError(
            "Linear mode connectivity compares mixtures with both models, and "
            f"alpha {' and '.join(missing)} was not measured. Add it to --alphas."
        )
    if len(set(alphas)) < len(alphas):
        twice = next(alpha for alpha in alphas if alphas.count(alpha) > 1)
        raise ResultsError(f"alpha {twice:g} occurs twice for one data set. Take the records of one run.")
    totals = {total for _, _, total in points}
    if len(totals) > 1 or 0 in totals:
        raise ResultsError(
            "expected every alpha to be measured on the same images, found counts of "
            f"{', '.join(map(str, sorted(totals)))} images. Take the records of one run."
        )
    if not any(0 < alpha < 1 for alpha in alphas):
        raise ResultsError("Linear mode connectivity needs an alpha between 0 and 1. Add one to --alphas.")

"""Whether accuracy stays high between the two models (the paper, section 5.2). Knows counts only."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.estimate import Estimate, combined
from mergekit_wise.analysis.point import Point as Place
from mergekit_wise.errors import ResultsError

Point = tuple[float, int, int]
"""Alpha, correct, total."""


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


def connectivity(points: Sequence[Point]) -> Connectivity:
    """Linear mode connectivity, observations 1 and 2 of the paper's section 5.2, on one data set.

    1. Acc(theta_alpha) >= (1 - alpha) Acc(theta_0) + alpha Acc(theta_1) for all alpha.
    2. Acc(theta_alpha) >= max(Acc(theta_0), Acc(theta_1)) for some alpha strictly between 0 and 1 (with the models
       themselves it would always hold).

    Whether they hold is decided by counts. The intervals of the margins treat the accuracies as independent although
    they are of the same images, which makes them wide, and do not account for the choice of the worst or best alpha.

    Args:
        points: alpha, correct and total of each; alphas outside [0, 1] are ignored.

    Raises:
        ResultsError: alpha 0, alpha 1 or any alpha in between is missing, an alpha occurs twice, or totals differ.
    """
    _require_complete(points)
    found = {alpha: Estimate.of_counts((correct, total)) for alpha, correct, total in points}
    correct = {alpha: count for alpha, count, _ in points}
    total = points[0][2]
    inner = sorted(alpha for alpha in found if 0 < alpha < 1)
    above_line = {
        alpha: combined([(1.0, found[alpha]), (-(1 - alpha), found[0.0]), (-alpha, found[1.0])]) for alpha in inner
    }
    lowest = min(inner, key=lambda alpha: (above_line[alpha].value, alpha))
    best = max(inner, key=lambda alpha: (found[alpha].value, Place.of_alpha(alpha).nearness))
    better = max((0.0, 1.0), key=lambda alpha: correct[alpha])
    gain = combined([(1, found[best]), (-1, found[better])])
    # Rounding may put a mixture on the line slightly below it; a real difference is at least one image.
    tolerance = 1e-6 / total
    return Connectivity(
        Observation(all(margin.value >= -tolerance for margin in above_line.values()), lowest, above_line[lowest]),
        Observation(correct[best] >= correct[better], best, gain),
    )


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

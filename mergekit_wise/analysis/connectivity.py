"""Whether accuracy stays up on the way from one model to the other (the paper, section 5.2). Knows counts only."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.candidate import nearest_to_default
from mergekit_wise.analysis.estimate import Estimate, combined
from mergekit_wise.errors import ResultsError

Point = tuple[float, int, int]
"""Alpha, correct, total."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """One mixture against the straight line between the ends.

    Attributes:
        alpha: strictly between 0 and 1.
        accuracy: of the mixture.
        line: (1 - alpha) Acc(theta_0) + alpha Acc(theta_1).
        difference: `accuracy` less `line`, with its interval.
    """

    alpha: float
    accuracy: Estimate
    line: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Observation:
    """Whether an observation holds, by how much, at which alpha, and whether that is beyond the 95 % interval.

    `margin` is negative by as much as the observation fails.
    """

    holds: bool
    alpha: float
    margin: Estimate

    @property
    def beyond(self) -> bool:
        """Whether the margin's interval leaves out zero."""
        return self.margin.low > 0 or self.margin.high < 0


@dataclass(frozen=True, slots=True)
class Connectivity:
    """The two observations on one data set.

    Attributes:
        first: accuracy is nowhere below the line between the ends; its margin is that of the alpha that comes worst.
        second: some mixture reaches at least the better end; its margin is that of the best mixture.
        crossings: every mixture by alpha, for a plot.
    """

    first: Observation
    second: Observation
    crossings: tuple[Crossing, ...]


def connectivity(points: Sequence[Point]) -> Connectivity:
    """Linear mode connectivity, observations 1 and 2 of the paper's section 5.2, on one data set.

    1. Acc(theta_alpha) >= (1 - alpha) Acc(theta_0) + alpha Acc(theta_1) for all alpha.
    2. Acc(theta_alpha) >= max(Acc(theta_0), Acc(theta_1)) for some alpha strictly between 0 and 1; with the ends it
       would always hold.

    Whether they hold is a matter of counts. The intervals of the margins take the accuracies as independent although
    they are of the same images, which makes them wide; that the worst or best of several alphas was picked they leave
    out of account.

    Args:
        points: alpha, correct and total of each; alphas outside [0, 1] are passed over.

    Raises:
        ResultsError: alpha 0 or 1 is missing, or all between; an alpha stands twice; totals differ.
    """
    _require_whole(points)
    found = {alpha: Estimate.of_counts((correct, total)) for alpha, correct, total in points}
    correct = {alpha: count for alpha, count, _ in points}
    total = points[0][2]
    crossings = tuple(_crossing(alpha, found) for alpha in sorted(found) if 0 < alpha < 1)
    worst = min(crossings, key=lambda c: (c.difference.value, c.alpha))
    best = max(crossings, key=lambda c: (c.accuracy.value, *nearest_to_default(c.alpha)))
    better = max((0.0, 1.0), key=lambda alpha: correct[alpha])
    gain = combined([(1, best.accuracy), (-1, found[better])])
    # A line that the mixture meets exactly may come out a hair above: an image is the least that counts.
    hair = 1e-6 / total
    return Connectivity(
        Observation(all(c.difference.value >= -hair for c in crossings), worst.alpha, worst.difference),
        Observation(correct[best.alpha] >= correct[better], best.alpha, gain),
        crossings,
    )


def _crossing(alpha: float, found: dict[float, Estimate]) -> Crossing:
    ends = [(1 - alpha, found[0.0]), (alpha, found[1.0])]
    against = [(1.0, found[alpha]), *((-factor, end) for factor, end in ends)]
    return Crossing(alpha, found[alpha], combined(ends), combined(against))


def _require_whole(points: Sequence[Point]) -> None:
    alphas = [alpha for alpha, _, _ in points]
    missing = [name for end, name in ((0.0, "0 (zero-shot)"), (1.0, "1 (fine-tuned)")) if end not in alphas]
    if missing:
        raise ResultsError(
            "Linear mode connectivity compares mixtures with both ends, and "
            f"alpha {' and '.join(missing)} was not measured. Add it to --alphas."
        )
    if len(set(alphas)) < len(alphas):
        twice = next(alpha for alpha in alphas if alphas.count(alpha) > 1)
        raise ResultsError(f"alpha {twice:g} stands twice for one data set. Take the records of one run.")
    totals = {total for _, _, total in points}
    if len(totals) > 1 or 0 in totals:
        raise ResultsError(
            f"expected every alpha to be measured on the same images, found counts of {_list(totals)} images. "
            "Take the records of one run."
        )
    if not any(0 < alpha < 1 for alpha in alphas):
        raise ResultsError("Linear mode connectivity needs an alpha between 0 and 1. Add one to --alphas.")


def _list(totals: set[int]) -> str:
    return ", ".join(map(str, sorted(totals)))

"""What a fixed alpha of 0.5 costs against the best one, column by column: the paper's Table 3. Knows numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.candidate import DEFAULT, Candidate, columns, nearest_to_default, require_comparable
from mergekit_wise.analysis.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Loss:
    """One column: its best alpha, and what 0.5 loses against that.

    Attributes:
        column: a data set's name, "average of shifts" or "average of both".
        alpha: the best one; of equal ones the nearest to 0.5.
        best: what it achieves there.
        default: what 0.5 achieves; None where 0.5 was not measured.
        loss: `best` less `default`, at least 0; None likewise.
        beyond: whether the best one's 95 % interval lies above 0.5's.
    """

    column: str
    alpha: float
    best: Estimate
    default: Estimate | None
    loss: float | None
    beyond: bool


def losses(candidates: Sequence[Candidate]) -> tuple[Loss, ...]:
    """The paper's Table 3: the reference, each shift, the average of the shifts, and the average of both.

    The best alpha is chosen for each column by itself, on the very images that it is reported on, as in the paper.
    Raises ResultsError where `recommend` does.
    """
    require_comparable(candidates)
    return tuple(_loss(candidates, place) for place in range(len(columns(candidates[0]))))


def _loss(candidates: Sequence[Candidate], place: int) -> Loss:
    found = {candidate.alpha: columns(candidate)[place] for candidate in candidates}
    alpha = max(found, key=lambda alpha: (round(found[alpha][1].value, 12), *nearest_to_default(alpha)))
    name, best = found[alpha]
    if DEFAULT not in found:
        return Loss(name, alpha, best, None, None, False)
    default = found[DEFAULT][1]
    return Loss(name, alpha, best, default, max(0.0, best.value - default.value), best.above(default))

"""Which alpha to use, and why. Knows accuracies, not where they come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from mergekit_wise.analysis.candidate import DEFAULT, Candidate, columns, nearest_to_default, require_comparable
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.errors import ResultsError, UsageError

__all__ = [
    "FINEST",
    "PREFERENCES",
    "Candidate",
    "Preference",
    "Recommendation",
    "as_preference",
    "recommend",
    "refine",
    "select_on",
]

Preference = Literal["average", "reference", "shifts", "both", "no-regret"]
PREFERENCES: tuple[str, ...] = get_args(Preference)

FINEST = 0.01
"""Alphas no farther apart than this are never refined: a step in the curve would be bisected forever."""

FINETUNED = 1.0

WARNING = (
    "This alpha was chosen on the sets that it is reported on, so its accuracy is on the high side. "
    "Confirm it on other images, or choose with --select-on DATASET."
)

Number = Callable[[Candidate], Estimate]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An alpha, the sentence that says why, and what to keep in mind."""

    alpha: float
    reason: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Goal:
    """What is to be as large as possible, what that is called, and a remark for the reason."""

    number: Number
    name: str
    remark: str = ""


def recommend(candidates: Sequence[Candidate], prefer: Preference = "average") -> Recommendation:
    """The alpha to use: 0.5 if the best one is not better beyond the 95 % intervals, else the best.

    Best is what has the highest number, and of equal ones the nearest to 0.5. It is better beyond the intervals if
    the interval of its number lies above that of 0.5's. The number is, by `prefer`:

    - average, both: the mean of the reference and the average of the shifts ("avg. ref., shifts" in the paper).
    - reference: the reference. shifts: the average of the shifts.
    - no-regret: the average of the shifts, among the alphas that lose nothing on the reference: those whose accuracy
      there is not below the 95 % interval of the fine-tuned end (alpha 1). 0.5 is the default if it is one of them.

    Where there is no reference, the shifts decide, and the other way round; the reason says so.

    Raises:
        UsageError: `prefer` is none of these.
        ResultsError: nothing was measured, an alpha stands twice, alphas were measured on different images, or
            no-regret has no alpha 1 to compare with.
    """
    require_comparable(candidates)
    goal = _goal(prefer, candidates[0])
    eligible = _eligible(prefer, candidates)
    return _chosen(eligible, goal, tried=any(c.alpha == DEFAULT for c in candidates), warning=WARNING)


def select_on(candidates: Sequence[Candidate], dataset: str) -> Recommendation:
    """The alpha to use by one data set alone, 0.5 again if nothing is better beyond the intervals.

    The data set is a column of the candidates: the reference or a shift by its name. For a set of its own that counts
    in no average, pass candidates that were measured on that set only; there is no warning then.

    Raises:
        UsageError: the candidates have no such column.
        ResultsError: as for `recommend`.
    """
    require_comparable(candidates)
    names = [name for name, _ in columns(candidates[0])]
    if dataset not in names:
        raise UsageError(f"Alphas cannot be chosen on {dataset}: it was not measured. Measured: {', '.join(names)}.")
    place = names.index(dataset)
    goal = _Goal(lambda c: columns(c)[place][1], f"the best result on {dataset}")
    alone = sum(total > 0 for _, total in (candidates[0].reference, *candidates[0].shifts)) == 1
    tried = any(c.alpha == DEFAULT for c in candidates)
    return _chosen(candidates, goal, tried=tried, warning="" if alone else WARNING)


def refine(candidates: Sequence[Candidate], prefer: Preference = "average") -> tuple[float, ...]:
    """Alphas to evaluate next: halfway from the best one to a neighbour, as long as intervals tell the two apart.

    Called again with their results it comes nearer, and ends with (): the best alpha's number cannot be told from its
    neighbours' beyond the 95 % intervals, or they are within ``FINEST``. Arguments and errors are those of `recommend`.
    """
    require_comparable(candidates)
    number = _goal(prefer, candidates[0]).number
    best = _best(_eligible(prefer, candidates), number)
    ordered = sorted(candidates, key=lambda c: c.alpha)
    return tuple(
        round((low.alpha + high.alpha) / 2, 9)
        for low, high in pairwise(ordered)
        if best in (low, high) and high.alpha - low.alpha > FINEST and number(low).differs(number(high))
    )


def as_preference(text: str) -> Preference:
    """`text` if it names a way to choose. Raises UsageError."""
    for known in PREFERENCES:
        if text == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"--prefer {text}: no such way to choose an alpha. Known ways: {', '.join(PREFERENCES)}.")


def _goal(prefer: str, example: Candidate) -> _Goal:
    if prefer not in PREFERENCES:
        raise UsageError(f"{prefer} is no way to choose an alpha. Known ways: {', '.join(PREFERENCES)}.")
    if not example.has_reference:
        remark = "" if prefer == "shifts" else "; no reference was measured"
        return _Goal(lambda c: c.shift_average, "the best average of the shifts", remark)
    if not example.shifts:
        remark = "" if prefer == "reference" else "; no shift was measured"
        return _Goal(lambda c: c.measured[0], "the best result on the reference", remark)
    match prefer:
        case "reference":
            return _Goal(lambda c: c.measured[0], "the best result on the reference")
        case "shifts":
            return _Goal(lambda c: c.shift_average, "the best average of the shifts")
        case "no-regret":
            remark = " of the alphas that lose nothing on the reference against alpha 1 beyond its 95 % interval"
            return _Goal(lambda c: c.shift_average, "the best average of the shifts", remark)
        case _:
            return _Goal(lambda c: c.both, "the best mean of reference and shifts")


def _eligible(prefer: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The alphas among which the best is sought."""
    if prefer != "no-regret" or not candidates[0].has_reference:
        return list(candidates)
    end = next((c for c in candidates if c.alpha == FINETUNED), None)
    if end is None:
        raise ResultsError("no-regret compares with the fine-tuned model, and alpha 1 was not measured. Add alpha 1.")
    floor = end.measured[0].low
    return [c for c in candidates if c.reference_accuracy >= floor]


def _best(candidates: Sequence[Candidate], number: Number) -> Candidate:
    # Rounded: sums of the same shares in another order are the same average.
    return max(candidates, key=lambda c: (round(number(c).value, 12), *nearest_to_default(c.alpha)))


def _chosen(candidates: Sequence[Candidate], goal: _Goal, *, tried: bool, warning: str) -> Recommendation:
    best = _best(candidates, goal.number)
    default = next((c for c in candidates if c.alpha == DEFAULT), None)
    what = f"{goal.name} ({goal.number(best).value:.1%}){goal.remark}"
    if default is None:
        why = f"{DEFAULT} is none of these" if tried else f"{DEFAULT} was not among the alphas"
        return Recommendation(best.alpha, f"{what}; {why}", warning)
    if best is default:
        return Recommendation(DEFAULT, what, warning)
    if goal.number(best).above(goal.number(default)):
        return Recommendation(best.alpha, f"{what}, above {DEFAULT} beyond the 95 % intervals", warning)
    reason = f"nothing separates it from {best.alpha:g}, {what}, beyond the 95 % intervals"
    return Recommendation(DEFAULT, reason, warning)

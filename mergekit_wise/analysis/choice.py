"""Which alpha to use and why, and what a fixed alpha of 0.5 loses (the paper's Table 3). Knows numbers only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from mergekit_wise.analysis.candidate import Candidate, columns, require_comparable
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.point import DEFAULT, Point
from mergekit_wise.errors import ResultsError, UsageError

Preference = Literal["average", "reference", "shifts", "both", "no-regret"]
PREFERENCES: tuple[str, ...] = get_args(Preference)

FINEST = 0.01
"""Alphas no farther apart than this are never refined: a step in the curve would be bisected forever."""

FINETUNED = 1.0

WARNING = (
    "The alpha was selected on the evaluation sets, so this accuracy is optimistic. Confirm it on other images, or "
    "select alpha with --select-on DATASET."
)

Number = Callable[[Candidate], Estimate]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The mixture to use, why it was chosen, and a warning for its user or ""."""

    point: Point
    reason: str
    warning: str = ""

    @property
    def alpha(self) -> float | None:
        """The mixing coefficient if it alone was swept."""
        return self.point.alpha


@dataclass(frozen=True, slots=True)
class Loss:
    """One column: its best alpha, and what 0.5 loses against it.

    Attributes:
        column: a data set's name, "average of shifts" or "average of both".
        point: the best one; of equally good ones the nearest to 0.5.
        best: what it achieves there.
        default: what 0.5 achieves; None if 0.5 was not measured.
        loss: `best` minus `default`, at least 0; None if 0.5 was not measured.
        significant: whether the best one's 95 % interval lies above 0.5's.
        difference: `best` minus `default` with its paired 95 % interval; None without the answers for each image.
    """

    column: str
    point: Point
    best: Estimate
    default: Estimate | None
    loss: float | None
    significant: bool
    difference: Estimate | None = None

    @property
    def alpha(self) -> float | None:
        """The mixing coefficient if it alone was swept."""
        return self.point.alpha


@dataclass(frozen=True, slots=True)
class Difference:
    """What a mixture achieves more than the default, image by image.

    Attributes:
        column: as in a `Loss`.
        point: the mixture.
        difference: with the paired 95 % interval of this one comparison.
        simultaneous: with the interval that holds for all mixtures at once.
        p: of McNemar's exact test, where the column is top-1 accuracy on one data set; else None.
        significant: whether the two can be told apart: by that test, else by the interval of `difference`.
    """

    column: str
    point: Point
    difference: Estimate
    simultaneous: Estimate
    p: float | None
    significant: bool


@dataclass(frozen=True, slots=True)
class CrossFit:
    """The number that decided, as it was chosen and reported on the same images, and on images that did not choose.

    Attributes:
        how: "halves" or "leave-one-out".
        naive: of the recommended mixture on all images.
        corrected: of mixtures that were chosen on other images.
        points: what was chosen in each part.
        sentence: both numbers in words.
    """

    how: str
    naive: float
    corrected: float
    points: tuple[Point, ...]
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a sweep concluded, and from what.

    Attributes:
        prefer, select_on, margin: the options; `margin` as a share, not in points.
        recommendation: the mixture to use.
        losses: of the default, by column.
        differences: from the default, by column and mixture; empty without the answers for each image.
        cross_fit: None if it was not asked for, or without the answers for each image.
        paired: whether the answers for each image were compared; else only whether intervals overlap.
    """

    prefer: str
    select_on: str
    margin: float
    recommendation: Recommendation
    losses: tuple[Loss, ...]
    differences: tuple[Difference, ...]
    cross_fit: CrossFit | None
    paired: bool


@dataclass(frozen=True, slots=True)
class _Goal:
    """The number that is maximised, its name after "best", and a note for the reason."""

    number: Number
    name: str
    note: str = ""


def recommend(candidates: Sequence[Candidate], prefer: Preference = "average") -> Recommendation:
    """The alpha to use: the best one if it is significantly better than 0.5, else 0.5.

    The best alpha has the highest number; of equally good ones it is the nearest to 0.5. It is significantly better if
    the 95 % interval of its number lies above that of 0.5's. `prefer` names the number:

    - average, both: the mean of the reference and the average of the shifts ("avg. ref., shifts" in the paper).
    - reference: the reference. shifts: the average of the shifts.
    - no-regret: the average of the shifts, among the alphas whose accuracy on the reference is not below the 95 %
      interval of the fine-tuned model (alpha 1). 0.5 is the default if it is one of them.

    Without a reference the shifts decide, and without shifts the reference; the reason then says so.

    Raises:
        UsageError: `prefer` is none of these.
        ResultsError: nothing was measured, an alpha occurs twice, alphas were measured on different images, or
            no-regret has no alpha 1 to compare with.
    """
    require_comparable(candidates)
    eligible = _eligible(prefer, candidates)
    tried = any(c.point.is_default for c in candidates)
    return _chosen(eligible, _goal(prefer, candidates[0]), tried=tried, warning=WARNING)


def select_on(candidates: Sequence[Candidate], dataset: str) -> Recommendation:
    """The alpha to use according to one data set, again 0.5 unless another one is significantly better.

    The data set is a column of the candidates: the reference or a shift by its name. For a held-out data set, pass
    candidates that were measured on it alone; the recommendation then has no warning.

    Raises:
        UsageError: the candidates have no such column.
        ResultsError: as for `recommend`.
    """
    require_comparable(candidates)
    names = [name for name, _ in columns(candidates[0])]
    if dataset not in names:
        raise UsageError(f"Alpha cannot be selected on {dataset}: it was not measured. Measured: {', '.join(names)}.")
    place = names.index(dataset)
    held_out = sum(total > 0 for _, total in (candidates[0].reference, *candidates[0].shifts)) == 1
    return _chosen(
        candidates,
        _Goal(lambda candidate: columns(candidate)[place][1], f"result on {dataset}"),
        tried=any(c.point.is_default for c in candidates),
        warning="" if held_out else WARNING,
    )


def refine(candidates: Sequence[Candidate], prefer: Preference = "average") -> tuple[float, ...]:
    """Alphas to evaluate next: halfway between the best one and each neighbour that differs significantly from it.

    Repeated calls with the added results approach the maximum and end with (): the best alpha's number does not differ
    significantly from its neighbours', or they are within ``FINEST``. Arguments and errors are those of `recommend`.
    """
    require_comparable(candidates)
    number = _goal(prefer, candidates[0]).number
    best = _best(_eligible(prefer, candidates), number)
    ordered = sorted(((c.point.alpha, c) for c in candidates if c.point.alpha is not None), key=lambda pair: pair[0])
    return tuple(
        round((low + high) / 2, 9)
        for (low, first), (high, second) in pairwise(ordered)
        if best in (first, second) and high - low > FINEST and number(first).differs(number(second))
    )


def losses(candidates: Sequence[Candidate]) -> tuple[Loss, ...]:
    """The paper's Table 3: the reference, each shift, the average of the shifts, and the average of both.

    The best alpha is chosen for each column separately, on the very images that it is reported on, as in the paper.
    Raises ResultsError like `recommend`.
    """
    require_comparable(candidates)
    return tuple(_loss(candidates, place) for place in range(len(columns(candidates[0]))))


def as_preference(text: str) -> Preference:
    """`text` if it names a preference. Raises UsageError."""
    for known in PREFERENCES:
        if text == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"--prefer {text}: expected one of {', '.join(PREFERENCES)}.")


def _goal(prefer: str, example: Candidate) -> _Goal:
    as_preference(prefer)
    shifts = "average of the shifts" if len(example.shifts) > 1 else "result on the shift"
    if not example.has_reference:
        note = "" if prefer == "shifts" else "; no reference was measured"
        return _Goal(lambda c: c.shift_average, shifts, note)
    if not example.shifts:
        note = "" if prefer == "reference" else "; no shift was measured"
        return _Goal(lambda c: c.measured[0], "result on the reference", note)
    match prefer:
        case "reference":
            return _Goal(lambda c: c.measured[0], "result on the reference")
        case "shifts":
            return _Goal(lambda c: c.shift_average, shifts)
        case "no-regret":
            among = "among the alphas that are not significantly worse than alpha 1 on the reference"
            return _Goal(lambda c: c.shift_average, f"{shifts} {among}")
        case _:
            the_shifts = "the average of the shifts" if len(example.shifts) > 1 else "the shift"
            return _Goal(lambda c: c.both, f"mean of the reference and {the_shifts}")


def _eligible(prefer: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The alphas that may be chosen."""
    if prefer != "no-regret" or not candidates[0].has_reference:
        return list(candidates)
    finetuned = next((c for c in candidates if c.point.alpha == FINETUNED), None)
    if finetuned is None:
        raise ResultsError("no-regret compares with the fine-tuned model, and alpha 1 was not measured. Add alpha 1.")
    floor = finetuned.measured[0].low
    return [c for c in candidates if c.reference_accuracy >= floor]


def _best(candidates: Sequence[Candidate], number: Number) -> Candidate:
    # Rounded, because sums of the same shares in another order are the same average.
    return max(candidates, key=lambda c: (round(number(c).value, 12), c.point.nearness))


def _chosen(candidates: Sequence[Candidate], goal: _Goal, *, tried: bool, warning: str) -> Recommendation:
    """The best of the eligible candidates, or the default; `tried` says whether 0.5 was measured at all."""
    number = goal.number
    best = _best(candidates, number)
    default = next((c for c in candidates if c.point.is_default), None)
    what = f"best {goal.name} ({100 * number(best).value:.1f} %{goal.note})"
    if default is None:
        why = f"{DEFAULT} is significantly worse there" if tried else f"{DEFAULT} was not evaluated"
        return Recommendation(best.point, f"{what}; {why}", warning)
    if best is default:
        return Recommendation(default.point, what, warning)
    if number(best).above(number(default)):
        return Recommendation(best.point, f"{what}, significantly above {DEFAULT}", warning)
    reason = f"{best.point} has the {what}, but it is not significantly above {DEFAULT}"
    return Recommendation(default.point, reason, warning)


def _loss(candidates: Sequence[Candidate], place: int) -> Loss:
    found = {candidate.point: columns(candidate)[place] for candidate in candidates}
    point = max(found, key=lambda point: (round(found[point][1].value, 12), point.nearness))
    name, best = found[point]
    default = next((found[point][1] for point in found if point.is_default), None)
    if default is None:
        return Loss(name, point, best, None, None, significant=False)
    return Loss(name, point, best, default, max(0.0, best.value - default.value), best.above(default))

"""Which mixture to use and why, and what a fixed alpha of 0.5 loses (the paper's Table 3). Knows numbers only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.calibration import calibrations
from mergekit_wise.analysis.candidate import BOTH, SHIFTS, UNMEASURED, Candidate, columns, require_comparable
from mergekit_wise.analysis.cross_fitting import Compare, CrossFit, by_halves, compared, leaving_one_out
from mergekit_wise.analysis.decision import (
    Comparison,
    Intervals,
    Recommendation,
    best_of,
    decide,
    excludes_zero,
    refine,
)
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.goal import ERRORS, Goal, goal_of
from mergekit_wise.analysis.paired import Evidence, evidence, mcnemar
from mergekit_wise.analysis.point import Point
from mergekit_wise.errors import ResultsError, UsageError
from mergekit_wise.wording import listed, shown

SIGNIFICANT = 0.05

WARNING = (
    "The alpha was selected on the evaluation sets, so this accuracy is optimistic. Confirm it on other data, or "
    "select alpha with --select-on DATASET."
)

UNPAIRED = "only intervals could be compared, because results of single images or items are not known"


@dataclass(frozen=True, slots=True)
class Loss:
    """One column: its best alpha, and what 0.5 loses against it.

    Attributes:
        column: a data set's name, "average of shifts" or "average of both".
        point: the best one; of equally good ones the nearest to 0.5.
        best: what it achieves there.
        default: what 0.5 achieves; None if 0.5 was not measured.
        loss: `best` minus `default`, at least 0; None if 0.5 was not measured.
        significant: whether the interval of `difference` lies above 0; without the answers for each image, whether the
            best one's 95 % interval lies above 0.5's.
        difference: `best` minus `default`, with the paired 95 % interval that holds for all mixtures at once, because
            the best one was picked; None without the answers for each image, or without 0.5.
        p: of McNemar's exact test of the two, where the column is top-1 accuracy on one data set; else None.
    """

    column: str
    point: Point
    best: Estimate
    default: Estimate | None
    loss: float | None
    significant: bool
    difference: Estimate | None = None
    p: float | None = None

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
class Choice:
    """What a sweep concluded, and from what.

    Attributes:
        prefer, select_on, margin: the options; `margin` as a share, not in points.
        recommendation: the mixture to use.
        losses: of the default, by column.
        differences: from the default, by column and mixture; empty without the answers for each image.
        cross_fit: None if it was not asked for or not needed, or without the answers for each image.
        paired: whether the answers for each image were compared; else only whether intervals overlap.
        finer: mixtures that refining would evaluate next.
    """

    prefer: str
    select_on: str
    margin: float
    recommendation: Recommendation
    losses: tuple[Loss, ...]
    differences: tuple[Difference, ...]
    cross_fit: CrossFit | None
    paired: bool
    finer: tuple[Point, ...] = ()

    def __repr__(self) -> str:
        return f"<Choice: {self.recommendation.point}, {shown(self.recommendation.reason, 120)}>"


@dataclass(frozen=True, slots=True)
class Measurements:
    """What mixtures achieve on a reference and shifts, and how they compare.

    Attributes:
        candidates: a mixture each; where they are compared image by image, intervals of averages are from resampling.
        answers: of the mixtures in this order, by the names of the data sets' columns; empty unless known for all.
        comparison: `paired.Evidence`, or `Intervals` without the answers.
    """

    candidates: tuple[Candidate, ...]
    answers: Mapping[str, Answers]
    comparison: Comparison

    @classmethod
    def of(cls, candidates: Sequence[Candidate], answers: Mapping[str, Answers]) -> "Measurements":
        """Measurements of candidates that can be compared, paired if there are answers for all their data sets.

        Args:
            candidates: a mixture each.
            answers: of all mixtures in this order, by the names of columns.

        Raises:
            ResultsError: nothing was measured, a mixture occurs twice, or mixtures were measured on different images.
        """
        require_comparable(candidates)
        names = _names_of_sets(candidates[0])
        known = {name: answers[name] for name in names if name in answers}
        if len(known) < len(names):
            return cls(tuple(candidates), {}, Intervals.of(candidates))
        found = evidence(list(known.values()), {each.dataset: name for name, each in known.items()})
        return cls(_with_averages(candidates, found), known, found)

    @property
    def points(self) -> tuple[Point, ...]:
        """Where the mixtures lie in their sweep."""
        return tuple(candidate.point for candidate in self.candidates)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of the comparison."""
        return tuple(name for name, _ in columns(self.candidates[0]))

    def only(self, name: str) -> "Measurements":
        """What the mixtures achieve on one of the data sets. Raises UsageError if there is none of this name."""
        names = _names_of_sets(self.candidates[0])
        if name not in names:
            raise UsageError(f"--select-on {name}: no such data set was measured; there are {', '.join(names)}.")
        place = names.index(name) + (0 if self.candidates[0].has_reference else 1)
        alone = [
            Candidate(
                each.point,
                UNMEASURED,
                ((each.reference, *each.shifts)[place],),
                ("reference", name),
                (None, each.measured[place]),
            )
            for each in self.candidates
        ]
        answers = {name: replace(self.answers[name], role="shift")} if self.answers else {}
        return Measurements.of(alone, answers)


def choose(
    measured: Measurements,
    *,
    prefer: str = "average",
    margin: float = 0.0,
    cross_fit: str = "halves",
    select_on: str = "",
    selected: Measurements | None = None,
    remedy: str = "",
) -> Choice:
    """The mixture to use, and how every mixture compares with the default.

    Args:
        measured: what is reported.
        prefer: see `goal.goal_of`.
        margin: of no-regret, as a share.
        cross_fit: one of `CROSS_FITS`.
        select_on: the name of the data set that decides, if one alone does.
        selected: measurements on that one, if it is held out; by default it is one of the measured data sets.
        remedy: how the answers for each image can be had, where they are not known.

    Raises:
        UsageError: `prefer` is unknown, or no data set is called `select_on`.
        ResultsError: no-regret has no alpha 1 to compare with, or calibration is not known for all images.
    """
    judges = measured.only(select_on) if select_on and selected is None else selected or measured
    points, example = judges.points, judges.candidates[0]

    def goal_for(shifts: int) -> Goal:
        if select_on:
            return Goal(0, f"result on {select_on}")
        return goal_of(prefer, points, shifts, has_reference=example.has_reference, margin=margin)

    goal = goal_for(len(example.shifts))
    compare = partial(compared, error=prefer) if prefer in ERRORS else compared
    comparison = _of_error(judges, prefer, remedy) if prefer in ERRORS else judges.comparison
    found, corrected, is_paired = decide(comparison, points, goal), None, judges.comparison.is_paired
    if selected is None and is_paired and len(points) > 1:
        corrected = _cross_fitted(cross_fit, judges, goal_for, found.point, compare)
    if len(points) > 1 and not is_paired:
        found = replace(found, reason=f"{found.reason}; {UNPAIRED}{f' ({remedy})' if remedy else ''}")
    if len(points) > 1 and selected is None and corrected is None:
        found = replace(found, warning=WARNING)
    return Choice(
        prefer,
        select_on,
        margin,
        found,
        losses(measured),
        differences(measured),
        corrected,
        is_paired,
        refine(comparison, points, goal),
    )


def _of_error(judges: Measurements, error: str, remedy: str) -> Comparison:
    """What mixtures achieve by an error of their confidence. Raises ResultsError where that is not known."""
    if len(judges.candidates) < 2:
        raise ResultsError(f"--prefer {error} compares mixtures, and one alone was measured. Add others.")
    if not judges.answers:
        advice = f" {remedy[0].upper()}{remedy[1:]}." if remedy else ""
        raise ResultsError(f"--prefer {error} needs the answers for each image, which are not known.{advice}")
    undefined = [
        each.title for each in judges.answers.values() if not all(error in one.values for one in calibrations(each))
    ]
    if undefined:
        other = "" if error == "ece" else " or by --prefer ece"
        raise ResultsError(
            f"--prefer {error}: undefined on {listed(undefined, 3)}, where images have several right classes or logits "
            f"that are not finite. Leave the data set out, or choose by accuracy{other}."
        )
    return evidence(
        list(judges.answers.values()), {each.dataset: name for name, each in judges.answers.items()}, error=error
    )


def _cross_fitted(
    how: str, judges: Measurements, goal_for: Callable[[int], Goal], chosen: Point, compare: Compare
) -> CrossFit | None:
    """The correction for choosing on what is reported; `goal_for` has the goal for a number of shifts."""
    answers = list(judges.answers.values())

    def goal_of_part(part: Sequence[Answers]) -> Goal:
        return goal_for(sum(each.role == "shift" for each in part))

    match how:
        case "halves":
            return by_halves(answers, judges.points, goal_of_part(answers), chosen, compare)
        case "leave-one-out":
            return leaving_one_out(answers, judges.points, goal_of_part, chosen, compare)
    return None


def losses(measured: Measurements) -> tuple[Loss, ...]:
    """The paper's Table 3: the reference, each shift, the average of the shifts, and the average of both.

    The best mixture is chosen for each column separately, on the very images that it is reported on, as in the paper.
    """
    return tuple(_loss(measured, place, name) for place, name in enumerate(measured.columns))


def differences(measured: Measurements) -> tuple[Difference, ...]:
    """How every mixture differs from the default in every column; empty without answers, or without the default."""
    default = _default(measured.points)
    if default is None or not measured.comparison.is_paired:
        return ()
    others = [number for number in range(len(measured.points)) if number != default]
    found = []
    for place, name in enumerate(measured.columns):
        contrasts = measured.comparison.contrasts(place, default)
        for number in others:
            alone, p = contrasts.pointwise(number), _p(measured, name, number, default)
            significant = excludes_zero(alone) if p is None else p < SIGNIFICANT
            joint = contrasts.simultaneous(number, others)
            found.append(Difference(name, measured.points[number], alone, joint, p, significant))
    return tuple(found)


def _loss(measured: Measurements, place: int, name: str) -> Loss:
    comparison, points = measured.comparison, measured.points
    number, default = best_of(comparison.values[place], points), _default(points)
    achieved = [dict(columns(candidate))[name] for candidate in measured.candidates]
    best = achieved[number]
    if default is None:
        return Loss(name, points[number], best, None, None, significant=False)
    others = [each for each in range(len(points)) if each != default]
    difference = comparison.contrasts(place, default).simultaneous(number, others)
    lost = max(0.0, best.value - achieved[default].value)
    loss = Loss(name, points[number], best, achieved[default], lost, significant=difference.low > 0)
    if not comparison.is_paired:
        return loss
    return replace(loss, difference=difference, p=_p(measured, name, number, default))


def _p(measured: Measurements, name: str, one: int, other: int) -> float | None:
    """McNemar's p-value of two mixtures, where the column is top-1 accuracy on one data set."""
    answers = measured.answers.get(name)
    if answers is None or answers.metric.kind != "top-1":
        return None
    first, second = answers.of_models([one, other]).right
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))


def _default(points: Sequence[Point]) -> int | None:
    return next((number for number, point in enumerate(points) if point.is_default), None)


def _names_of_sets(candidate: Candidate) -> list[str]:
    """The names of the columns that are a data set each."""
    count = candidate.has_reference + len(candidate.shifts)
    return [name for name, _ in columns(candidate)][:count]


def _with_averages(candidates: Sequence[Candidate], found: Evidence) -> tuple[Candidate, ...]:
    """The candidates with the intervals that averages have when images are drawn again."""
    places = {name: place for place, name in enumerate(found.columns)}
    with_averages = []
    for number, candidate in enumerate(candidates):
        shifts, both = candidate.shift_average, candidate.both
        if SHIFTS in places:
            shifts = found.estimate(places[SHIFTS], number)
        if BOTH in places:
            both = found.estimate(places[BOTH], number)
        elif not candidate.has_reference:
            both = shifts
        with_averages.append(replace(candidate, averages=(shifts, both)))
    return tuple(with_averages)

"""What a choice of a mixture maximises, and how its numbers are written. Knows names and numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.point import ALPHA, Point
from mergekit_wise.errors import ResultsError, UsageError

Preference = Literal["average", "reference", "shifts", "both", "no-regret", "nll", "ece"]
PREFERENCES: tuple[str, ...] = get_args(Preference)

FINETUNED = 1.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How a number is written of which the highest is best.

    Attributes:
        factor: what it is multiplied by; negative if it is the negative of what is written, such as an error.
        unit, unit_of_differences: what follows it.
        best, above: the words for the best one, and for one that is better than another.
    """

    factor: float = 100.0
    unit: str = " %"
    unit_of_differences: str = " points"
    best: str = "best"
    above: str = "above"
    digits: int = 1

    def value(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.factor * value:.{self.digits}f}{self.unit}"

    def difference(self, value: float) -> str:
        """By how much one mixture is better than another, with its unit; negative if it is worse."""
        return f"{self._number(value)}{self.unit_of_differences}"

    def interval(self, difference: Estimate) -> str:
        """The bounds of a difference, without unit."""
        return f"{self._number(difference.low)} to {self._number(difference.high)}"

    def _number(self, difference: float) -> str:
        written = abs(self.factor) * difference
        short = f"{written:.{self.digits}f}"
        # A bound that is not zero must not look like it, because what is significant depends on its sign.
        return short if float(short) or not written else f"{written:.{self.digits + 1}f}"


PERCENT = Scale()

ERRORS = {
    "nll": Scale(-1.0, " nats", " nats", "lowest", "below", 3),
    "ece": Scale(-100.0, " %", " points", "lowest", "below"),
}
"""Preferences for calibration: the lower the better, so that the evidence is about the negative number."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A mixture may be chosen only if it is shown to lose less than `margin` against another one.

    Attributes:
        column: of the evidence, in which that is shown.
        base: the number of the mixture that it is compared with, which may be chosen in any case.
        margin: at least 0, in the evidence's unit.
    """

    column: int
    base: int
    margin: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What is maximised.

    Attributes:
        column: of the evidence.
        name: what the column's number is, as it follows "best".
        note: what follows the number in the reason.
        floor: what a mixture must keep to be chosen at all.
        scale: how the number is written.
    """

    column: int
    name: str
    note: str = ""
    floor: Floor | None = None
    scale: Scale = PERCENT


def goal_of(prefer: str, points: Sequence[Point], shifts: int, *, has_reference: bool, margin: float = 0.0) -> Goal:
    """The goal that a preference names, in evidence with a column for the reference if there is one, and each shift.

    - average, both: the mean of the reference and the average of the shifts ("avg. ref., shifts" in the paper).
    - reference: the reference. shifts: the average of the shifts.
    - no-regret: the average of the shifts, among the mixtures that are shown to lose less than `margin` on the
      reference against the fine-tuned model (alpha 1).
    - nll, ece: the mean of the same two as average, of evidence on the negative of these errors.

    Without a reference the shifts decide, and without shifts the reference; the reason then says so.

    Raises:
        UsageError: `prefer` is none of these.
        ResultsError: no-regret has no alpha 1 to compare with.
    """
    as_preference(prefer)
    if prefer in ERRORS:
        goal = goal_of("average", points, shifts, has_reference=has_reference)
        of = goal.name.removeprefix("result on ")
        return replace(goal, name=f"{prefer.upper()} ({of})", scale=ERRORS[prefer])
    of_reference, of_shifts = 0, has_reference + (shifts if shifts > 1 else 0)
    of_both = of_shifts + 1
    name = "average of the shifts" if shifts > 1 else "result on the shift"
    if not has_reference:
        return Goal(of_shifts, name, "" if prefer == "shifts" else "; no reference was measured")
    if not shifts:
        note = "" if prefer == "reference" else "; no shift was measured"
        floor = _no_regret(points, margin) if prefer == "no-regret" else None
        return Goal(of_reference, "result on the reference", note, floor)
    match prefer:
        case "reference":
            return Goal(of_reference, "result on the reference")
        case "shifts":
            return Goal(of_shifts, name)
        case "no-regret":
            return Goal(of_shifts, f"{name} {_among(margin)}", floor=_no_regret(points, margin))
        case _:
            the_shifts = "the average of the shifts" if shifts > 1 else "the shift"
            return Goal(of_both, f"mean of the reference and {the_shifts}")


def as_preference(text: str) -> Preference:
    """`text` if it names a preference. Raises UsageError."""
    for known in PREFERENCES:
        if text == known:
            return known  # type: ignore[return-value]
    raise UsageError(f"--prefer {text}: expected one of {', '.join(PREFERENCES)}.")


def _among(margin: float) -> str:
    if not margin:
        return "among alpha 1 and the mixtures that are significantly better than it on the reference"
    lost = f"{100 * margin:g} {'point' if margin == 0.01 else 'points'}"
    return f"among the mixtures shown to lose less than {lost} on the reference against alpha 1"


def require_finetuned(points: Sequence[Point]) -> Point:
    """The fine-tuned model's place among the points, which no-regret compares with. Raises ResultsError without it."""
    finetuned = Point.of_alpha(FINETUNED)
    if finetuned in points:
        return finetuned
    if points[0].names != (ALPHA,):
        varied = " and ".join(points[0].names)
        raise ResultsError(
            f"no-regret compares with the fine-tuned model, alpha 1, which is not among the mixtures of a sweep of "
            f"{varied}. Choose another --prefer."
        )
    raise ResultsError("no-regret compares with the fine-tuned model, and alpha 1 was not measured. Add alpha 1.")


def _no_regret(points: Sequence[Point], margin: float) -> Floor:
    return Floor(0, points.index(require_finetuned(points)), margin)

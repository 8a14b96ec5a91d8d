"""What a sweep says of images without labels: estimates, the alpha that they favour, and a back-test on the shifts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.analysis import Answers, Point, Recommendation
from mergekit_wise.analysis.back_test import Certainty, Trial, back_test, certainty
from mergekit_wise.analysis.decision import decide, refine
from mergekit_wise.analysis.goal import Goal
from mergekit_wise.analysis.paired import Evidence
from mergekit_wise.analysis.unlabelled import BOTH_ESTIMATED, Estimated, estimate, estimates
from mergekit_wise.datasets.subsets import companion_name
from mergekit_wise.errors import ResultsError, UsageError
from mergekit_wise.evaluation.measure import Measured
from mergekit_wise.evaluation.unlabelled import ROLE
from mergekit_wise.options import SweepOptions
from mergekit_wise.results import Estimation, Record, append_records, as_entry, read_estimations
from mergekit_wise.wording import listed, plural

ESTIMATED = "estimated"
"""The value of ``--prefer`` for which estimates decide."""

WARNING = (
    "The recommendation rests on accuracy that was estimated without labels, and its interval knows only of the images "
    "that were drawn. {} Confirm the alpha on labelled images."
)
TRIED = "The back-test shows how far off such estimates are."
UNTRIED = "How far off such estimates are is not known without a labelled shift."


FEW = 30
"""Wrong answers on the reference below which the threshold of ATC is said to be uncertain."""


@dataclass(frozen=True, slots=True)
class WithoutLabels:
    """What the mixtures of a sweep are estimated to achieve.

    Attributes:
        points: the mixtures.
        sets: the estimates on each set of images without labels.
        certainty: the alpha that ATC would choose for all sets together.
        shifts: the same estimates on labelled shifts, with the accuracies that they did not use.
        trials: how each method would have chosen on the shifts; empty without a shift.
        lines: for the results file.
        notes: what the estimates leave out.
        evidence: what mixtures are compared by.
    """

    points: tuple[Point, ...]
    sets: tuple[Estimated, ...]
    certainty: Certainty
    shifts: tuple[Estimated, ...]
    trials: tuple[Trial, ...]
    lines: tuple[Estimation, ...]
    notes: tuple[str, ...]
    evidence: Evidence

    def __repr__(self) -> str:
        sets = plural(len(self.sets), "set")
        return f"<WithoutLabels: {plural(len(self.points), 'mixture')} on {sets}, {self.certainty.point} favoured>"


def estimates_entry(found: WithoutLabels) -> dict[str, object]:
    """The estimates, the mixture that they favour, and the back-test, for JSON."""
    best = found.certainty
    gain = None if best.gain is None else [best.gain.value, best.gain.low, best.gain.high]
    trials = [
        {
            "method": trial.method,
            "error": trial.error,
            "loss_for_each": trial.per_shift,
            "loss_for_all": trial.together,
            "point": trial.point.values,
            "alpha": trial.point.alpha,
        }
        for trial in found.trials
    ]
    return {
        "estimates": [as_entry(line) for line in found.lines],
        "by_estimates": {"point": best.point.values, "alpha": best.point.alpha, "value": best.value, "gain": gain},
        "back_test": trials,
    }


def require_estimable(options: SweepOptions) -> None:
    """Raise UsageError now if the options for estimates do not fit together."""
    if options.prefer == ESTIMATED and not options.unlabelled:
        raise UsageError("--prefer estimated needs images to estimate on. Name a folder of them with --unlabelled.")


def without_labels(measured: Measured, points: Sequence[Point], options: SweepOptions) -> WithoutLabels:
    """The estimates for the mixtures at `points`, which are in the order of the variants that were measured.

    Raises ResultsError if what the reference's images were answered is not known.
    """
    by_name = {each.dataset: each for each in measured.answers}
    reference = next((each for each in measured.answers if each.role == "reference"), None)
    if reference is None:
        raise ResultsError(
            "The answers for the reference's images are not known, and estimates need them. Run it again with --redo."
        )
    sets, evidence = estimates(reference, measured.unlabelled)
    shifts: list[Estimated] = []
    others: list[str] = []
    for each in measured.answers:
        if each.role != "shift":
            continue
        known = reference if each.outputs == reference.outputs else by_name.get(companion_name(each.dataset))
        if known is None or not len(known.labels):
            others.append(each.title)
        else:
            shifts.append(replace(estimate(known, each), accuracy=each.right.mean(axis=1)))
    lines = [
        _line(each, role, reference, measured.records[0], points, options)
        for role, several in ((ROLE, sets), ("shift", shifts))
        for each in several
    ]
    return WithoutLabels(
        tuple(points),
        sets,
        certainty(evidence, points),
        tuple(shifts),
        back_test(shifts, points) if shifts else (),
        tuple(lines),
        (*_notes(reference, others), *_notes_on_errors(reference)),
        evidence,
    )


def by_estimates(found: WithoutLabels) -> tuple[Recommendation, tuple[Point, ...]]:
    """The mixture with the best mean of the reference and the estimates, or 0.5; and what --refine adds next."""
    sets = "the average of the estimates" if len(found.sets) > 1 else f"the estimate on {found.sets[0].title}"
    goal = Goal(found.evidence.columns.index(BOTH_ESTIMATED), f"mean of the reference and {sets}")
    chosen = decide(found.evidence, found.points, goal)
    warning = WARNING.format(TRIED if found.shifts else UNTRIED)
    return replace(chosen, warning=warning), refine(found.evidence, found.points, goal)


def append_lines(found: WithoutLabels, results: Path) -> None:
    """Add the estimates to a results file, unless it holds them. Raises ResultsError."""
    held = set(read_estimations(results)) if results.is_file() else set()
    if new := [line for line in found.lines if line not in held]:
        append_records(results, new)


def _notes(reference: Answers, others: Sequence[str]) -> list[str]:
    notes = []
    if reference.metric.kind != "top-1":
        notes.append(
            f"{reference.title}: reports {reference.metric.kind}; what is estimated without labels is the share of "
            "right answers, there and on all other images"
        )
    if others:
        notes.append(
            f"{listed(others, 3)}: no back-test, because the classes are others than the reference's; --analyze makes "
            "one against the reference's images of these classes, if it has them"
        )
    return notes


def _line(
    found: Estimated, role: str, reference: Answers, record: Record, points: Sequence[Point], options: SweepOptions
) -> Estimation:
    """An estimate as a results file holds it, of the pair and the suite of `record`."""
    return Estimation(
        model=record.model,
        suite=record.suite,
        pair=record.pair,
        rule=record.rule,
        dataset=found.dataset,
        title=found.title,
        role=role,
        reference=reference.dataset,
        images=found.images,
        limit=options.limit,
        seed=None if options.limit is None else options.seed,
        points=tuple(point.values for point in points),
        atc=tuple(found.atc.tolist()),
        doc=tuple(found.doc.tolist()),
        ac=tuple(found.ac.tolist()),
        low=tuple(found.low.tolist()) if role == ROLE else (),
        high=tuple(found.high.tolist()) if role == ROLE else (),
        entropy=tuple(found.entropy.tolist()),
        accuracy=() if found.accuracy is None else tuple(found.accuracy.tolist()),
    )


def _notes_on_errors(reference: Answers) -> Iterator[str]:
    """Says so if the threshold of ATC rests on few wrong answers; without one, every estimate would be 100 %."""
    wrong = (~reference.right).sum(axis=1)
    if (few := int((wrong < FEW).sum())) > 0:
        yield (
            f"{reference.title}: {few} of {plural(len(wrong), 'mixture')} get fewer than {FEW} images wrong, so the "
            "threshold of ATC rests on few images; without a wrong answer, ATC estimates 100 %"
        )

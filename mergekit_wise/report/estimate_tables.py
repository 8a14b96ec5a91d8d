"""What a sweep prints of images without labels: tables of estimates and of the back-test, and sentences on them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mergekit_wise.analysis.back_test import ALWAYS, Certainty, Trial
from mergekit_wise.analysis.estimate import Estimate
from mergekit_wise.analysis.point import Point
from mergekit_wise.analysis.unlabelled import Estimated
from mergekit_wise.report.best import best_marked
from mergekit_wise.report.table import Cell, Table, interval, percent, share
from mergekit_wise.wording import plural

NO_BACK_TEST = (
    "No back-test: no labelled shift was evaluated that has the reference's classes, so how far off these estimates "
    "are is not known."
)


def estimate_table(found: Estimated, points: Sequence[Point], favoured: Point) -> Table:
    """A row per mixture: ATC's estimate with its interval, DoC, AC, and the mean entropy; `favoured` is marked."""
    rows: list[tuple[Cell | str, ...]] = []
    for number, point in enumerate(points):
        atc = Estimate(found.atc[number], found.low[number], found.high[number])
        estimates = (share(float(each[number])) for each in (found.doc, found.ac))
        names = (f"{each:g}" for each in point.numbers)
        rows.append((*names, share(float(atc.value)), interval(atc, " - "), *estimates, f"{found.entropy[number]:.3f}"))
    swept = points[0].names
    columns = (*swept, "ATC", "95 % interval", "DoC", "AC", "Entropy")
    table = Table.of_cells(columns, rows, [point == favoured for point in points], len(swept))
    return replace(table, body=best_marked(table.body, len(swept)))


def estimate_title(found: Estimated) -> str:
    """What the numbers of a table of estimates are."""
    return f"{found.title}: accuracy estimated without labels on {plural(found.images, 'image')} (%)"


def choice_sentence(found: Certainty, sets: Sequence[Estimated]) -> str:
    """Which mixture ATC would choose, and whether it differs significantly from 0.5."""
    where = sets[0].title if len(sets) == 1 else f"{len(sets)} unlabelled sets together"
    start = f"By ATC on {where}, the best is {found.point} (estimated {percent(found.value)} %)"
    gain = found.gain
    if gain is None:
        return f"{start}; 0.5 was not evaluated."
    if found.point.is_default:
        return f"{start}."
    apart = "so it is significant" if gain.low > 0 else "so it is not significant"
    return (
        f"{start}, {_points(gain.value)} points above 0.5 (paired 95 % interval {_points(gain.low)} to "
        f"{_points(gain.high)}, {apart})."
    )


def trial_table(trials: Sequence[Trial]) -> Table:
    """A row per method: the mean error of its estimates, and what choosing by it loses against the best mixture."""
    rows = [
        (
            trial.method,
            "" if trial.error is None else _points(trial.error),
            _points(trial.per_shift),
            _points(trial.together),
            ", ".join(f"{number:g}" for number in trial.point.numbers),
        )
        for trial in trials
    ]
    names = ", ".join(trials[0].point.names)
    columns = ("Chosen by", "Mean error", "Loss for each", "Loss for all", f"{names} for all")
    return Table.of_texts(columns, rows)


def shift_table(shifts: Sequence[Estimated], trials: Sequence[Trial]) -> Table:
    """A row per labelled shift: how far off ATC is there, what it chooses and loses, and what 0.5 loses."""
    atc, always = trials[0], next((trial for trial in trials if trial.method == ALWAYS), None)
    rows = []
    for number, shift in enumerate(shifts):
        error, point, loss = atc.each[number]
        rows.append(
            (
                shift.title,
                "" if error is None else _points(error),
                ", ".join(f"{each:g}" for each in point.numbers),
                _points(loss),
                "" if always is None else _points(always.each[number][2]),
            )
        )
    names = ", ".join(atc.point.names)
    return Table.of_texts(("Shift", "ATC's mean error", f"ATC's {names}", "Loss", "Loss of 0.5"), rows)


def trial_title(shifts: Sequence[Estimated]) -> str:
    """What the numbers of the back-test are."""
    return f"Back-test: the same estimates on {plural(len(shifts), 'labelled shift')}, without their labels (points)"


def sentences(found: Certainty, sets: Sequence[Estimated], trials: Sequence[Trial]) -> Iterator[str]:
    """What to read from the estimates of a sweep."""
    yield choice_sentence(found, sets)
    if not trials:
        yield NO_BACK_TEST
        return
    atc = trials[0]
    always = next((trial for trial in trials if trial.method == ALWAYS), None)
    against = "" if always is None else f"; always 0.5 loses {_points(always.together)}"
    error = "" if atc.error is None else f"ATC is off by {_points(atc.error)} points on average. "
    yield (
        f"On the labelled shifts, {error}Choosing by it for all of them loses {_points(atc.together)} points against "
        f"the best mixture{against}."
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"

"""The tables that commands print: accuracies, sweeps, their analysis, and predictions, in ASCII."""

from collections.abc import Sequence
from dataclasses import replace

from mergekit_wise.analysis import Answers, Candidate, Loss, Point
from mergekit_wise.analysis.candidate import BOTH, SHIFTS, columns
from mergekit_wise.analysis.connectivity import connectivity
from mergekit_wise.analysis.corruption_error import ALEXNET_ERRORS, SEVERITIES, mean_corruption_error
from mergekit_wise.analysis.goal import PERCENT
from mergekit_wise.analysis.paired import evidence
from mergekit_wise.errors import ResultsError
from mergekit_wise.report.best import best_marked
from mergekit_wise.report.table import EMPTY, Cell, Table, interval, percent, share
from mergekit_wise.results import ENSEMBLE, Analysis, Record, points_of
from mergekit_wise.results.predictions import Prediction
from mergekit_wise.results.record import column_names

AVERAGES = {SHIFTS: "Avg shifts", BOTH: "Avg both"}
"""How the columns of averages are called where there is little room."""


MOST_FURTHER = 6
"""How many numbers that an evaluator reports besides fit into a table; all of them are in the results file."""


def accuracy_table(records: Sequence[Record], missing: int = 0) -> Table:
    """A row per data set with its result, 95 % interval, top-1 counts and top-5 accuracy, then the shifts' average.

    A metric other than top-1 is named after the data set's title. What an evaluator of one's own reports besides, takes
    the place of top-5 accuracy, as far as there is room. `missing` is how many data sets were not found.
    """
    further = tuple(dict.fromkeys(name for r in records if r.evaluator for name in r.values))[:MOST_FURTHER]
    own = all(r.evaluator for r in records)
    rows = [
        (
            r.title if r.metric == "top-1" else f"{r.title} ({r.metric})",
            percent(r.value, ""),
            interval(r.result, " - "),
            "" if r.correct is None else f"{r.correct}/{r.total}",
            *(percent(r.values[name], "") if name in r.values else "" for name in further),
            *(() if further or own else ("" if r.top5 is None else percent(r.top5 / r.total),)),
        )
        for r in records
    ]
    last = further or (() if own else ("Top-5",))
    empty = ("",) * (2 + len(last))
    corruption = corruption_error(records)
    if corruption is not None:
        rows.append(("Mean corruption error (AlexNet 100)", percent(corruption), *empty))
    gap = background_gap(records)
    if gap is not None:
        rows.append(("Background gap (mixed same - mixed rand)", percent(gap, ""), *empty))
    shifts = [r.value for r in records if r.role == "shift"]
    if len(shifts) > 1:
        absent = f", {missing} {'set' if missing == 1 else 'sets'} missing" if missing else ""
        rows.append((f"Average of {len(shifts)} shifts{absent}", percent(sum(shifts) / len(shifts), ""), *empty))
    marked = [index >= len(records) for index in range(len(rows))]
    return Table.of_texts(("Data set", "Result", "95 % interval", "Correct", *last), rows, marked)


def corruption_error(records: Sequence[Record]) -> float | None:
    """ImageNet-C's mCE of one model; None unless all 15 corruptions were measured at all five severities."""
    errors: dict[str, list[float]] = {}
    for record in records:
        suite, _, rest = record.dataset.partition("imagenet-c-")
        if rest and not suite:
            errors.setdefault(rest.rpartition("-")[0], []).append(1 - record.accuracy)
    complete = errors.keys() == ALEXNET_ERRORS.keys() and all(len(five) == SEVERITIES for five in errors.values())
    return mean_corruption_error(errors) if complete else None


def background_gap(records: Sequence[Record]) -> float | None:
    """ImageNet-9's BG-Gap of one model: its accuracy with backgrounds of the same class, less that with random ones.

    None unless both were measured.
    """
    found = {record.dataset: record.accuracy for record in records}
    same, random = (found.get(f"imagenet-9-mixed-{kind}") for kind in ("same", "rand"))
    return None if same is None or random is None else same - random


def sweep_table(candidates: Sequence[Candidate], records: Sequence[Record], recommended: Point) -> Table:
    """A row per mixture: the reference, every shift, the shifts' average, and the average of reference and shifts.

    Averages that would repeat another column are left out: those of a single shift, or without a reference.
    """
    measured = measured_table(records)
    rows = []
    for row, candidate in zip(measured.body, candidates, strict=True):
        found = dict(columns(candidate))
        rows.append((*row.cells, *(share(found[name].value) for name in AVERAGES if name in found)))
    marked = [candidate.point == recommended for candidate in candidates]
    titles = [title for name, title in AVERAGES.items() if name in dict(columns(candidates[0]))]
    return _of_mixtures((*measured.columns, *titles), rows, marked, measured.names)


def sweep_title(records: Sequence[Record], suite: str) -> str:
    """What the numbers of a sweep's table are; metrics other than top-1 accuracy are named with their data sets."""
    others = dict.fromkeys(f"{record.title}: {record.metric}" for record in records if record.metric != "top-1")
    return f"Results on {suite} (%; {', '.join(others)})" if others else f"Accuracy on {suite} (%)"


def measured_table(records: Sequence[Record]) -> Table:
    """A row per mixture, with what varies, and a column per data set; empty where it was not measured."""
    references = {r.dataset: "Ref." for r in records if r.role == "reference"}
    titles = column_names(records) | references
    values = {(r.at, r.dataset): share(r.value) for r in records}
    points = points_of(records)
    rows = [
        (*(Cell(f"{number:g}") for number in point.numbers), *(values.get((point, name), EMPTY) for name in titles))
        for point in points
    ]
    names = points[0].names
    return _of_mixtures((*names, *titles.values()), rows, [False] * len(rows), len(names))


def _of_mixtures(heads: Sequence[str], rows: Sequence[Sequence[Cell]], marked: Sequence[bool], names: int) -> Table:
    """A table with the best of each column marked, apart from the first ones, which name the mixture."""
    table = Table.of_cells(heads, rows, marked, names)
    return replace(table, body=best_marked(table.body, names))


def loss_table(losses: Sequence[Loss]) -> Table:
    """A row per column of a sweep: its best mixture, the result there, and the loss at 0.5 (the paper's Table 3).

    The interval is that of the loss where mixtures were compared image by image, else that of the result.
    """
    is_paired = any(loss.difference is not None for loss in losses)
    rows = []
    for loss in losses:
        lost = "" if loss.loss is None else percent(loss.loss) + (" *" if loss.significant else "")
        best = (loss.column, ", ".join(f"{number:g}" for number in loss.point.numbers), percent(loss.best.value, ""))
        if is_paired:
            rows.append((*best, lost, _bounds(loss)))
        else:
            rows.append((*best, interval(loss.best, " - "), lost))
    at, varied = "Loss at 0.5", ", ".join(losses[0].point.names)
    heads = (at, "Paired 95 % interval") if is_paired else ("95 % interval", at)
    return Table.of_texts(("Best for", varied, "Result", *heads), rows, [loss.significant for loss in losses])


def loss_title(losses: Sequence[Loss]) -> str:
    """What the table of losses shows."""
    names = " and ".join(losses[0].point.names)
    lost = any(loss.loss is not None for loss in losses)
    return f"Best {names} per data set" + (f", and the loss at {names} 0.5 (* significant)" if lost else "")


def _bounds(loss: Loss) -> str:
    """The interval of a loss in points, which may begin below 0; empty if there is no loss."""
    return "" if loss.difference is None or not loss.loss else PERCENT.interval(loss.difference)


def analysis_table(analyses: Sequence[Analysis]) -> Table:
    """A row per number and a column per data set; output-space ensembles have a table of their own."""
    names = dict.fromkeys(name for a in analyses for name in a.values if not name.startswith(ENSEMBLE))
    rows = [(name, *(f"{a.values[name]:.4g}" if name in a.values else "" for a in analyses)) for name in names]
    return Table.of_texts(("", *(a.title for a in analyses)), rows)


def ensemble_table(analyses: Sequence[Analysis], records: Sequence[Record]) -> Table:
    """A row per alpha: for each data set the results of mixing weights and of mixing outputs."""
    weights = {(r.dataset, f"{r.alpha:g}"): r.value for r in records if r.alpha is not None}
    alphas = dict.fromkeys(n.removeprefix(ENSEMBLE) for a in analyses for n in a.values if n.startswith(ENSEMBLE))

    def both(analysis: Analysis, alpha: str) -> str:
        values = (weights.get((analysis.dataset, alpha)), analysis.values.get(ENSEMBLE + alpha))
        return " / ".join("" if value is None else percent(value, "") for value in values)

    rows = [(alpha, *(both(a, alpha) for a in analyses)) for alpha in alphas]
    return Table.of_texts(("alpha", *(a.title for a in analyses)), rows)


def connectivity_table(records: Sequence[Record], answers: Sequence[Answers] = ()) -> Table:
    """A row per data set: whether the paper's observations 1 and 2 hold, and by which margin in percentage points.

    `answers` are those behind the records, for mixtures in ascending order.
    """
    rows = []
    for name, title in {r.dataset: r.title for r in records}.items():
        points = [(r.alpha, r.result, r.total) for r in records if r.dataset == name and r.alpha is not None]
        own = [replace(each, role="shift") for each in answers if each.dataset == name]
        try:
            found = connectivity(
                sorted(points, key=lambda point: point[0]), evidence(own, {name: title}) if own else None
            )
        except ResultsError:  # no mixture between the two models
            continue
        observations = (
            f"{'holds' if o.holds else 'fails'} by {100 * abs(o.margin.value):.1f} at {o.alpha:g}"
            + (" *" if o.significant else "")
            for o in (found.first, found.second)
        )
        rows.append((title, *observations))
    return Table.of_texts(("Data set", "Above the line", "Above both models"), rows)


def prediction_table(predictions: Sequence[Prediction], *, with_alpha: bool) -> Table:
    """A row per image: its most probable class, and the alpha of the mixture that predicted it if there is one."""
    heads = ("File", "Class", "Probability (%)", *(["Alpha"] if with_alpha else []))
    rows = [
        (
            each.file,
            each.text,
            percent(each.probabilities[0]) if each.probabilities else "",
            *([f"{each.alpha:.3f}"] if with_alpha else []),
        )
        for each in predictions
    ]
    return Table.of_texts(heads, rows)

"""What a sweep says beside its accuracies, as rows of text. Knows nothing of how they are drawn."""

from collections.abc import Sequence

from mergekit_wise.analysis import Loss, connectivity
from mergekit_wise.errors import ResultsError
from mergekit_wise.report.table import Table, interval, percent
from mergekit_wise.results import Analysis, Record

ENSEMBLE = "output-space ensemble at "


def loss_table(losses: Sequence[Loss]) -> Table:
    """One row a column: its best alpha, what that achieves, and what 0.5 loses against it (the paper's Table 3)."""
    rows = tuple(
        (
            loss.column,
            f"{loss.alpha:g}",
            percent(loss.best.value),
            interval((loss.best.low, loss.best.high)),
            "" if loss.loss is None else percent(loss.loss) + (" *" if loss.beyond else ""),
        )
        for loss in losses
    )
    return Table(("Best for", "alpha", "Result", "95 % interval", "0.5 loses"), rows, tuple(x.beyond for x in losses))


def analysis_table(analyses: Sequence[Analysis]) -> Table:
    """One row a number, one column a data set; ensembles are in a table of their own."""
    names = [name for name in dict.fromkeys(n for a in analyses for n in a.values) if not name.startswith(ENSEMBLE)]
    rows = tuple((name, *(f"{a.values[name]:.4g}" if name in a.values else "" for a in analyses)) for name in names)
    return Table(("", *(a.title for a in analyses)), rows, (False,) * len(rows))


def ensemble_table(analyses: Sequence[Analysis], records: Sequence[Record]) -> Table:
    """One row an alpha: for each data set what mixing weights achieves, and what mixing outputs does."""
    weights = {(r.dataset, f"{r.alpha:g}"): r.value for r in records if r.alpha is not None}
    alphas = list(dict.fromkeys(n.removeprefix(ENSEMBLE) for a in analyses for n in a.values if n.startswith(ENSEMBLE)))
    rows = tuple((alpha, *(_both(a, alpha, weights.get((a.dataset, alpha))) for a in analyses)) for alpha in alphas)
    return Table(("alpha", *(a.title for a in analyses)), rows, (False,) * len(rows))


def connectivity_table(records: Sequence[Record]) -> Table:
    """One row a data set: the paper's observations 1 and 2, and by how much they hold, in points."""
    rows = []
    for title in dict.fromkeys(r.title for r in records):
        points = [(r.alpha, r.correct, r.total) for r in records if r.title == title and r.alpha is not None]
        try:
            found = connectivity(points)
        except ResultsError:  # no mixture between both ends
            continue
        cells = (
            f"{'holds' if o.holds else 'fails'} by {100 * abs(o.margin.value):.1f} at {o.alpha:g}"
            + (" *" if o.beyond else "")
            for o in (found.first, found.second)
        )
        rows.append((title, *cells))
    return Table(("Data set", "Above the line", "Above both ends"), tuple(rows), (False,) * len(rows))


def _both(analysis: Analysis, alpha: str, weights: float | None) -> str:
    outputs = analysis.values.get(ENSEMBLE + alpha)
    return " / ".join("" if value is None else percent(value) for value in (weights, outputs))

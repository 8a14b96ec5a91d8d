"""The tables of a report: results, and what the analysis found. Knows summaries; knows nothing of HTML and LaTeX."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from mergekit_wise.analysis.connectivity import Observation
from mergekit_wise.report.best import best_marked, compared
from mergekit_wise.report.choices import star
from mergekit_wise.report.comparison import SYMBOLS, Column, Comparison, Curve, Images
from mergekit_wise.report.summary import Summary, robustness
from mergekit_wise.report.table import (
    EMPTY,
    EXTRAPOLATED,
    Cell,
    Row,
    Table,
    alpha_text,
    interval,
    percent,
    points,
    points_interval,
)
from mergekit_wise.results import At

MEANINGS = {
    "prediction diversity": "Prediction diversity: share of images on which exactly one of the two models is right.",
    "kappa": "Kappa complement: 0 if the models always agree, 1 if they agree only as often as by chance.",
    "kl divergence": "KL divergence: of the fine-tuned from the zero-shot probabilities, in nats.",
    "cka": "CKA complement: 0 if the outputs are equal up to rotation and scale.",
    "confidence": "Confidence: mean margin between the largest and the second largest output.",
    "overrides": "Overrides: which model the mixture at 0.5 follows if the two disagree.",
    "agreement": "Agreement: of mixing weights and mixing outputs at 0.5.",
}
"""The meaning of a number, by a word of its name."""

Cells = Callable[[Curve, At], Mapping[str, Cell]]
"""The cells of a curve's row at a place in its sweep, by column."""


def results_table(summary: Summary) -> Table:
    """A row per model and alpha, a column per data set and average; below, each column's best alpha and loss at 0.5."""
    comparison = summary.comparison

    def cells(curve: Curve, alpha: At) -> dict[str, Cell]:
        results = {column.name: curve.result(alpha, column) for column in comparison.columns}
        return {
            column.name: EMPTY
            if (result := results[column.name]) is None
            else Cell(percent(result.value), interval(result), result.value, images=curve.images(alpha, column))
            for column in comparison.columns
        }

    table = table_of_mixtures(
        comparison,
        cells,
        {column.name: heading(column) for column in comparison.columns},
        f"Results on {comparison.suite}",
        "Percentages with 95 % intervals; the best of each column in bold.",
    )
    if any(len(images) > 1 for images in compared(table.body, table.names)):
        table = replace(
            table,
            caption="Percentages with 95 % intervals; the best of each column in bold, among the results on the same, "
            "largest set of images.",
        )
    if not any(cell.best for row in table.body for cell in row.cells):
        table = replace(table, caption="Percentages with 95 % intervals.")
    below = tuple(row for index in range(len(comparison.curves)) for row in _losses(summary, index))
    starred = any("*" in cell.text for row in below for cell in row.cells[table.names :])
    meaning = star(curve.choice for curve, lost in zip(comparison.curves, summary.losses, strict=True) if lost)
    caption = f"{table.caption} {meaning}" if starred else table.caption
    return replace(table, summary=below, caption=caption)


def analysis_tables(summary: Summary) -> tuple[Table, ...]:
    """Effective robustness, connectivity, findings, output-space ensembles and further metrics; none without rows."""
    comparison = summary.comparison
    tables = (
        _robustness(comparison),
        _connectivity(summary),
        *(_findings(comparison, index) for index in range(len(comparison.curves))),
        _ensembles(comparison),
        _metrics(comparison),
    )
    return tuple(table for table in tables if table.body)


def heading(column: Column) -> str:
    """The title of a column, with its metric unless that is accuracy."""
    return column.title if column.metric in ("", "top-1") else f"{column.title} ({column.metric})"


def table_of_mixtures(
    comparison: Comparison, cells: Cells, headings: Mapping[str, str], title: str, caption: str
) -> Table:
    """A row for each model and alpha that has `cells`; a column for each key of `headings` that has any.

    Args:
        comparison: what is shown.
        cells: of a row, by keys of `headings`.
        headings: of the columns, in their order.
        title: of the table.
        caption: what its numbers mean.
    """
    found = [
        (index, alpha, given)
        for index, curve in enumerate(comparison.curves)
        for alpha in curve.alphas
        if (given := cells(curve, alpha))
    ]
    keys = [key for key in headings if any(key in given for _, _, given in found)]
    names = (*_model_column(comparison), *(SYMBOLS.get(name, name) for name in comparison.swept))
    rows = [
        Row(
            (
                *_model_cell(comparison, index),
                *_place_cells(comparison, index, alpha),
                *(given.get(key, EMPTY) for key in keys),
            ),
            index,
            alpha,
        )
        for index, alpha, given in found
    ]
    columns = (*names, *(headings[key] for key in keys))
    return Table(columns, best_marked(rows, len(names)), title=title, caption=caption, names=len(names))


def _model_column(comparison: Comparison) -> tuple[str, ...]:
    """The head of the column that names models; none with a single model."""
    return ("Model",) if len(comparison.curves) > 1 else ()


def _model_cell(comparison: Comparison, index: int) -> tuple[Cell, ...]:
    return (Cell(comparison.curves[index].name),) if len(comparison.curves) > 1 else ()


def _place_cells(comparison: Comparison, index: int, at: At) -> Iterable[Cell]:
    """The values of the swept parameters, each in its column; those that a curve does not vary are empty."""
    curve = comparison.curves[index]
    point = curve.point(at)
    values = {} if point is None else dict(point.values)
    for name in comparison.swept:
        if name in values:
            note = curve.ends.get(values[name], "") if curve.has_ends else ""
            yield Cell(alpha_text(values[name]), note, values[name])
        else:
            yield Cell(alpha_text(None)) if name in curve.swept else EMPTY


def _losses(summary: Summary, index: int) -> Iterable[Row]:
    """A curve's best alpha of each column, and the loss at 0.5."""
    comparison, losses = summary.comparison, summary.losses[index]
    if not losses:
        return
    model = _model_cell(comparison, index)
    each = [losses.get(column.name) for column in comparison.columns]
    best = (
        EMPTY if loss is None else Cell(alpha_text(loss.point.numbers), number=loss.point.numbers[0]) for loss in each
    )
    rest = (EMPTY,) * (len(comparison.swept) - 1)
    yield Row((*model, Cell(f"best {comparison.curves[index].symbol}"), *rest, *best))
    if any(loss is not None and loss.loss is not None for loss in each):
        lost = (
            EMPTY
            if loss is None or loss.loss is None
            else Cell(
                percent(loss.loss) + ("*" if loss.significant else ""),
                points_interval(loss.difference) if loss.difference is not None and loss.loss else "",
                loss.loss,
            )
            for loss in each
        )
        yield Row((*model, Cell("loss at 0.5"), *rest, *lost))


def _robustness(comparison: Comparison) -> Table:
    def cells(curve: Curve, alpha: At) -> dict[str, Cell]:
        shifts = [column for column in comparison.columns if column.role == "shift"]

        def images(shift: Column) -> Images:
            reference = comparison.reference
            return curve.images(alpha, shift) + (() if reference is None else curve.images(alpha, reference))

        found = {column.name: robustness(comparison, curve, alpha, column) for column in shifts}
        return {
            column.name: Cell(
                points(rho.value.value) + (EXTRAPOLATED if rho.is_extrapolated else ""),
                points_interval(rho.value),
                rho.value.value,
                images=images(column),
            )
            for column in shifts
            if (rho := found[column.name]) is not None
        }

    return table_of_mixtures(
        comparison,
        cells,
        {column.name: column.title for column in comparison.columns},
        "Effective robustness",
        "Percentage points above the accuracy expected of models that were trained on the reference alone (the dashed "
        "line in the plots). The line is taken as exact. A dagger (†) marks models that are better or worse on "
        "the reference than all models of the line: there it is an extrapolation.",
    )


def _connectivity(summary: Summary) -> Table:
    comparison = summary.comparison
    names = (*_model_column(comparison), "Data set")
    rows = tuple(
        Row(
            (
                *_model_cell(comparison, index),
                Cell(column.title),
                *_observation(found.first),
                *_observation(found.second),
            )
        )
        for index, connectivities in enumerate(summary.connectivities)
        for column in comparison.columns
        if (found := connectivities.get(column.name)) is not None
    )
    first = ("Never below the line", "lowest", "at α")
    second = ("Reaches the better model", "highest", "at α")
    return Table(
        (*names, *first, *second),
        rows,
        title="Linear mode connectivity",
        caption="Observation 1: no mixture is below the straight line between zero-shot and fine-tuned. Observation 2: "
        "some mixture is at least as good as the better of the two. Margins in percentage points.",
        names=len(names),
    )


def _observation(found: Observation) -> tuple[Cell, ...]:
    return (
        Cell("holds" if found.holds else "fails", number=float(found.holds)),
        Cell(points(found.margin.value), points_interval(found.margin), found.margin.value),
        Cell(f"{found.alpha:g}", number=found.alpha),
    )


def _findings(comparison: Comparison, index: int) -> Table:
    """A row per number of a curve's analysis, a column per data set."""
    curve = comparison.curves[index]
    found = [curve.findings[column.name] for column in comparison.columns if column.name in curve.findings]
    keys = dict.fromkeys(key for finding in found for key in finding.values)
    rows = tuple(Row((Cell(_spelled(key)), *(_value(finding.values.get(key)) for finding in found))) for key in keys)
    title = "Zero-shot against fine-tuned"
    return Table(
        ("Measure", *(finding.title for finding in found)),
        rows,
        title=f"{title}: {curve.name}" if len(comparison.curves) > 1 else title,
        caption=" ".join(meaning for word, meaning in MEANINGS.items() if any(word in key for key in keys)),
    )


def _spelled(key: str) -> str:
    """The name of a number, spelled as in the paper."""
    name = key.replace("_", " ").replace("zeroshot", "zero-shot").replace("finetuned", "fine-tuned")
    return re.sub(r"^(kl|cka) ", lambda found: found[0].upper(), name)


def _value(value: float | str | None) -> Cell:
    match value:
        case None | "nan":
            return EMPTY
        case str():
            return Cell(value)
    shown = f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    return Cell(shown.replace("-", "−"), number=value)


def _ensembles(comparison: Comparison) -> Table:
    def cells(curve: Curve, alpha: At) -> dict[str, Cell]:
        found = {}
        for column in comparison.columns:
            finding, weights = curve.findings.get(column.name), curve.result(alpha, column)
            outputs = finding.ensembles.get(alpha) if finding is not None and isinstance(alpha, float) else None
            if outputs is not None:
                note = "" if weights is None else f"weights {points(weights.value - outputs)}"
                images = () if weights is None else curve.images(alpha, column)
                found[column.name] = Cell(percent(outputs), note, outputs, images=images)
        return found

    return table_of_mixtures(
        comparison,
        cells,
        {column.name: column.title for column in comparison.columns},
        "Output-space ensembles",
        "Accuracy of mixing outputs instead of weights, in per cent; below, the difference when mixing weights, in "
        "percentage points.",
    )


def _metrics(comparison: Comparison) -> Table:
    """Numbers that data sets report besides their primary one."""
    headings = {
        f"{column.name} {key}": f"{column.title}, {key}"
        for column in comparison.columns
        for curve in comparison.curves
        for alpha in curve.alphas
        if (row := curve.rows.get((alpha, column.name))) is not None
        for key in row.values
    }

    def cells(curve: Curve, alpha: At) -> dict[str, Cell]:
        rows = [(column, curve.rows.get((alpha, column.name))) for column in comparison.columns]
        return {
            f"{row.dataset} {key}": Cell(percent(value), number=value, images=curve.images(alpha, column))
            for column, row in rows
            if row is not None
            for key, value in row.values.items()
        }

    return table_of_mixtures(comparison, cells, headings, "Further metrics", "Per cent.")

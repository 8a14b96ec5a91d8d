"""What the analysis found, as tables. Knows comparisons, verdicts and findings; knows nothing of HTML."""

import re
from collections.abc import Iterable, Sequence

from mergekit_wise.analysis import Connectivity
from mergekit_wise.analysis.connectivity import Observation
from mergekit_wise.report.baseline import robustness
from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.sheet import (
    EMPTY,
    Cell,
    Row,
    Sheet,
    ends,
    model_cell,
    model_column,
    percent,
    points,
    sheet_of_mixtures,
)
from mergekit_wise.report.summary import Verdict

MEANINGS = {
    "prediction diversity": "Prediction diversity: the share of images on which exactly one of the two is right.",
    "kappa": "Kappa complement: 0 if the two always agree, 1 if only as often as by chance.",
    "kl divergence": "KL divergence: of the fine-tuned from the zero-shot probabilities, in nats.",
    "cka": "CKA complement: 0 if the outputs are the same up to rotation and scale.",
    "confidence": "Confidence: the mean margin between the largest and the second largest output.",
    "overrides": "Overrides: whom the mixture at 0.5 follows where the two disagree.",
    "agreement": "Agreement: of mixing weights and mixing outputs at 0.5.",
}
"""By a word of its name, what a number says."""


def analysis_sheets(comparison: Comparison, verdicts: Sequence[Verdict]) -> tuple[Sheet, ...]:
    """Those that have rows: effective robustness, the way between the ends, findings, and further metrics."""
    sheets = (
        _robustness(comparison),
        _connectivity(comparison, verdicts),
        *(_findings(comparison, index) for index in range(len(comparison.curves))),
        _ensembles(comparison),
        _metrics(comparison),
    )
    return tuple(sheet for sheet in sheets if sheet.rows)


def _robustness(comparison: Comparison) -> Sheet:
    def cells(curve: Curve, alpha: float | None) -> dict[str, Cell]:
        shifts = [column for column in comparison.columns if column.role == "shift"]
        found = {column.name: robustness(comparison, curve, alpha, column) for column in shifts}
        return {
            name: Cell(points(result.value), ends(result, "points"), result.value)
            for name, result in found.items()
            if result is not None
        }

    return sheet_of_mixtures(
        "Effective robustness",
        comparison,
        cells,
        {column.name: column.title for column in comparison.columns},
        "Percentage points above what models that were trained on the reference alone are expected to reach, which is "
        "the dashed line in the plots.",
    )


def _connectivity(comparison: Comparison, verdicts: Sequence[Verdict]) -> Sheet:
    names = (*model_column(comparison), "Data set")
    rows = [
        Row((*model_cell(comparison, index), Cell(column.title), *_observed(verdict.connectivity[column.name])))
        for index, verdict in enumerate(verdicts)
        for column in comparison.columns
        if column.name in verdict.connectivity
    ]
    first = ("Never below the line", "lowest", "at α")
    second = ("Reaches the better end", "highest", "at α")
    remark = (
        "Observation 1: no mixture is below the straight line between zero-shot and fine-tuned. Observation 2: some "
        "mixture is at least as good as the better of the two. Margins in percentage points."
    )
    return Sheet("Linear mode connectivity", (*names, *first, *second), len(names), tuple(rows), remark=remark)


def _observed(found: Connectivity) -> Iterable[Cell]:
    yield from _observation(found.first)
    yield from _observation(found.second)


def _observation(found: Observation) -> Iterable[Cell]:
    yield Cell("holds" if found.holds else "fails", number=float(found.holds))
    yield Cell(points(found.margin.value), ends(found.margin, "points"), found.margin.value)
    yield Cell(f"{found.alpha:g}", number=found.alpha)


def _findings(comparison: Comparison, index: int) -> Sheet:
    """A row a number, a column a data set."""
    curve = comparison.curves[index]
    found = [curve.findings[column.name] for column in comparison.columns if column.name in curve.findings]
    keys = dict.fromkeys(key for finding in found for key in finding.values)
    rows = tuple(Row((Cell(_measure(key)), *(_value(each.values.get(key)) for each in found))) for key in keys)
    title = "Between zero-shot and fine-tuned"
    title = f"{title}: {curve.name}" if len(comparison.curves) > 1 else title
    remark = " ".join(meaning for word, meaning in MEANINGS.items() if any(word in key for key in keys))
    return Sheet(title, ("Measure", *(finding.title for finding in found)), 1, rows, remark=remark)


def _measure(key: str) -> str:
    """What a number is called, spelled as the paper does."""
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


def _ensembles(comparison: Comparison) -> Sheet:
    def cells(curve: Curve, alpha: float | None) -> dict[str, Cell]:
        found = {}
        for column in comparison.columns:
            finding, weights = curve.findings.get(column.name), curve.result(alpha, column)
            outputs = None if finding is None or alpha is None else finding.ensembles.get(alpha)
            if outputs is not None:
                note = "" if weights is None else f"weights {points(weights.value - outputs)}"
                found[column.name] = Cell(percent(outputs), note, outputs)
        return found

    return sheet_of_mixtures(
        "Outputs mixed instead of weights",
        comparison,
        cells,
        {column.name: column.title for column in comparison.columns},
        "Output-space ensembles, in per cent; below, how much more mixing the weights achieves, in percentage points.",
    )


def _metrics(comparison: Comparison) -> Sheet:
    """Numbers that data sets report beside the primary one."""
    headings = {
        f"{column.name} {key}": f"{column.title}, {key}"
        for column in comparison.columns
        for curve in comparison.curves
        for alpha in curve.alphas
        if (row := curve.rows.get((alpha, column.name))) is not None
        for key in row.values
    }

    def cells(curve: Curve, alpha: float | None) -> dict[str, Cell]:
        rows = [curve.rows.get((alpha, column.name)) for column in comparison.columns]
        return {
            f"{row.dataset} {key}": Cell(percent(value), number=value)
            for row in rows
            if row is not None
            for key, value in row.values.items()
        }

    return sheet_of_mixtures("Further metrics", comparison, cells, headings, "Per cent.")

"""Numbers in rows and columns, ready for a page or a paper: what is written, what it sorts by, what stands out.

Knows comparisons and verdicts; knows nothing of HTML, Markdown and LaTeX.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mergekit_wise.analysis import Estimate, Loss
from mergekit_wise.report.comparison import Column, Comparison, Curve
from mergekit_wise.report.summary import Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, a smaller one beside it, the number behind it (NaN where there is none), and whether it is the best."""

    text: str
    note: str = ""
    number: float = math.nan
    best: bool = False
    result: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Cells; `curve` and `alpha` say of which mixture, where it is one."""

    cells: tuple[Cell, ...]
    curve: int | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: `names` of its first columns are texts, all others numbers; `summary` are rows below a line."""

    title: str
    columns: tuple[str, ...]
    names: int
    rows: tuple[Row, ...]
    summary: tuple[Row, ...] = ()
    remark: str = ""


EMPTY = Cell("")


def percent(share: float) -> str:
    """Per cent with one decimal; a dash for no number."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def points(share: float) -> str:
    """A difference in percentage points, signed, with a minus that is as wide as a plus."""
    return "–" if math.isnan(share) else f"{100 * share:+.1f}".replace("-", "−")


def ends(result: Estimate, show: str = "percent") -> str:
    """The interval of a result; empty where there is none."""
    if math.isnan(result.low):
        return ""
    if show == "points":
        return f"{points(result.low)} to {points(result.high)}"
    return f"{percent(max(result.low, 0.0))}–{percent(min(result.high, 1.0))}"


def alpha_text(alpha: float | None) -> str:
    """An alpha as it is written everywhere."""
    return "–" if alpha is None else f"{alpha:g}"


def accuracy_sheet(comparison: Comparison, verdicts: Sequence[Verdict]) -> Sheet:
    """Each model and alpha on each data set, with the averages; below, each column's best alpha and the loss of 0.5."""
    sheet = sheet_of_mixtures(
        f"Results on {comparison.suite}",
        comparison,
        lambda curve, alpha: {column.name: _cell(curve, alpha, column) for column in comparison.columns},
        {column.name: heading(column) for column in comparison.columns},
        "Per cent, with 95 % intervals; the best of each column in bold.",
    )
    summary = [
        row
        for curve, verdict in zip(comparison.curves, verdicts, strict=True)
        if verdict.losses
        for row in _summary(comparison, curve, verdict.losses)
    ]
    starred = any("*" in cell.text for row in summary for cell in row.cells[sheet.names :])
    remark = f"{sheet.remark} *: beyond the intervals." if starred else sheet.remark
    return replace(sheet, summary=tuple(summary), remark=remark)


def sheet_of_mixtures(
    title: str,
    comparison: Comparison,
    cells: Callable[[Curve, float | None], Mapping[str, Cell]],
    headings: Mapping[str, str],
    remark: str,
) -> Sheet:
    """A row for each model and alpha that has `cells`; a column for each key of `headings` that has any."""
    found = [
        (index, alpha, given)
        for index, curve in enumerate(comparison.curves)
        for alpha in curve.alphas
        if (given := cells(curve, alpha))
    ]
    keys = [key for key in headings if any(key in given for _, _, given in found)]
    rows = [
        Row((*_names(comparison, index, alpha), *(given.get(key, EMPTY) for key in keys)), index, alpha)
        for index, alpha, given in found
    ]
    names = (*model_column(comparison), "α")
    columns = (*names, *(headings[key] for key in keys))
    return Sheet(title, columns, len(names), _best_marked(rows, len(names)), remark=remark)


def model_column(comparison: Comparison) -> tuple[str, ...]:
    """The head of the column that names models; none where there is one model."""
    return ("Model",) if len(comparison.curves) > 1 else ()


def model_cell(comparison: Comparison, index: int) -> tuple[Cell, ...]:
    """What stands in that column."""
    return (Cell(comparison.curves[index].name),) if len(comparison.curves) > 1 else ()


def heading(column: Column) -> str:
    """The title of a column, with its metric where that is not accuracy."""
    return column.title if column.metric in ("", "top-1") else f"{column.title} ({column.metric})"


def _best_marked(rows: Sequence[Row], first: int) -> tuple[Row, ...]:
    """The largest number of each column from `first` on, where there is more than one, as the best."""
    width = max((len(row.cells) for row in rows), default=0)
    best = {}
    for place in range(first, width):
        numbers = [row.cells[place].number for row in rows if not math.isnan(row.cells[place].number)]
        best[place] = max(numbers) if len(numbers) > 1 else math.nan
    return tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, best=math.isclose(cell.number, best[place], abs_tol=1e-12)) if place in best else cell
                for place, cell in enumerate(row.cells)
            ),
        )
        for row in rows
    )


def _names(comparison: Comparison, index: int, alpha: float | None) -> tuple[Cell, ...]:
    note = {0.0: "zero-shot", 1.0: "fine-tuned"}.get(-1.0 if alpha is None else alpha, "")
    return (*model_cell(comparison, index), Cell(alpha_text(alpha), note, math.nan if alpha is None else alpha))


def _cell(curve: Curve, alpha: float | None, column: Column) -> Cell:
    result = curve.result(alpha, column)
    return EMPTY if result is None else Cell(percent(result.value), ends(result), result.value, result=result)


def _summary(comparison: Comparison, curve: Curve, found: Mapping[str, Loss]) -> Iterable[Row]:
    name = model_cell(comparison, comparison.curves.index(curve))
    each = [found.get(column.name) for column in comparison.columns]
    best = (EMPTY if x is None else Cell(f"{x.alpha:g}", number=x.alpha) for x in each)
    yield Row((*name, Cell("best α"), *best))
    if any(x is not None and x.loss is not None for x in each):
        yield Row((*name, Cell("loss of 0.5"), *(EMPTY if x is None else _lost(x) for x in each)))


def _lost(loss: Loss) -> Cell:
    if loss.loss is None:
        return EMPTY
    return Cell(percent(loss.loss) + ("*" if loss.beyond else ""), number=loss.loss)

"""Tables as files: CSV for programs, Markdown for documents, LaTeX for papers. Every text of a record is escaped."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO

from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.report.comparison import Comparison
from mergekit_wise.report.table import Cell, Row, Table
from mergekit_wise.results import no_formula

COLUMNS = (
    *("suite", "model", "alpha", "dataset", "title", "role", "metric", "value", "low", "high", "correct", "total"),
    *("point", "rule"),
)


def as_csv(comparisons: Iterable[Comparison]) -> str:
    """A line for each model, alpha and data set or average: shares with six decimals, empty if unknown."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for comparison in comparisons:
        for curve in comparison.curves:
            for alpha in curve.alphas:
                for column in comparison.columns:
                    if (result := curve.result(alpha, column)) is None:
                        continue
                    row = curve.rows.get((alpha, column.name))
                    texts = (comparison.suite, curve.name)
                    about = (column.name, column.title, column.role, column.metric)
                    numbers = (result.value, result.low, result.high)
                    counts = ("", "") if row is None else ("" if row.correct is None else row.correct, row.total)
                    writer.writerow(
                        (
                            *map(no_formula, texts),
                            alpha if curve.swept == (ALPHA,) and alpha is not None else "",
                            *map(no_formula, about),
                            *("" if math.isnan(number) else f"{number:.6f}" for number in numbers),
                            *counts,
                            no_formula(str(point)) if curve.swept != (ALPHA,) and (point := curve.point(alpha)) else "",
                            no_formula(curve.rule),
                        )
                    )
    return file.getvalue()


def as_markdown(tables: Iterable[Table]) -> str:
    """GitHub Markdown tables with their titles; the best of each column in bold."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    rule = ["---"] * table.names + ["---:"] * (len(table.columns) - table.names)
    lines = [
        map(escaped_markdown, table.columns),
        rule,
        *_rows((*table.body, *table.summary), lambda cell: _with_note(cell, escaped_markdown, "**{}**", "{} ({})")),
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {escaped_markdown(table.title)}\n\n{text}\n\n{escaped_markdown(table.caption)}\n"


def escaped_markdown(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|&#~$])", r"\\\1", text)


def as_latex(tables: Iterable[Table]) -> str:
    """Tabular environments with booktabs rules; the best of each column in bold."""
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    rows = list(_rows(table.body, _latex_cell))
    summary = list(_rows(table.summary, _latex_cell))
    lines = [
        f"% {escaped_latex(table.title)}. {escaped_latex(table.caption)}",
        f"\\begin{{tabular}}{{{'l' * table.names}{'r' * (len(table.columns) - table.names)}}}",
        "\\toprule",
        f"{' & '.join(map(escaped_latex, table.columns))} \\\\",
        "\\midrule",
        *(f"{' & '.join(row)} \\\\" for row in rows),
        *(["\\midrule"] if summary else []),
        *(f"{' & '.join(row)} \\\\" for row in summary),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    return _with_note(cell, escaped_latex, r"\textbf{{{}}}", r"{} {{\scriptsize ({})}}")


TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # else an argument of the end of the line before
    "*": "{*}",
    "α": r"$\alpha$",
    "ρ": r"$\rho$",
    "†": r"\dag{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escaped_latex(text: str) -> str:
    """A text that LaTeX shows as it is; several hyphens do not become a dash."""
    parts = re.split("-(?=-)", text)
    return "-{}".join("".join(TEX.get(character, character) for character in part) for part in parts)


def _rows(rows: Sequence[Row], write: Callable[[Cell], str]) -> Iterable[list[str]]:
    return ([write(cell) for cell in row.cells] for row in rows)


def _with_note(cell: Cell, escaped: Callable[[str], str], bold: str, noted: str) -> str:
    text = escaped(cell.text)
    text = bold.format(text) if cell.best else text
    return noted.format(text, escaped(cell.note)) if cell.note else text

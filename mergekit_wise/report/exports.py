"""Tables as files: CSV for programs, Markdown for pages, LaTeX for papers. Every text of a record is escaped."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO

from mergekit_wise.report.comparison import Comparison
from mergekit_wise.report.sheet import Cell, Row, Sheet

HEADS = ("suite", "model", "alpha", "dataset", "title", "role", "metric", "value", "low", "high", "correct", "total")


def as_csv(comparisons: Iterable[Comparison]) -> str:
    """A line for each model, alpha and data set or average: shares in full, empty where nothing is known."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADS)
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
                    counts = ("", "") if row is None else (row.correct, row.total)
                    writer.writerow(
                        (
                            *map(_harmless, texts),
                            "" if alpha is None else alpha,
                            *map(_harmless, about),
                            *("" if math.isnan(number) else f"{number:.6f}" for number in numbers),
                            *counts,
                        )
                    )
    return file.getvalue()


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_markdown(sheets: Iterable[Sheet]) -> str:
    """Tables of GitHub's Markdown under their titles; the best of each column in bold."""
    return "\n".join(_markdown(sheet) for sheet in sheets)


def _markdown(sheet: Sheet) -> str:
    rule = ["---"] * sheet.names + ["---:"] * (len(sheet.columns) - sheet.names)
    lines = [
        map(_marked_down, sheet.columns),
        rule,
        *_lines((*sheet.rows, *sheet.summary), lambda cell: _noted(cell, _marked_down, "**{}**", "{} ({})")),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {_marked_down(sheet.title)}\n\n{table}\n\n{_marked_down(sheet.remark)}\n"


def _marked_down(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", text)


def as_latex(sheets: Iterable[Sheet]) -> str:
    """Tabulars with the rules of booktabs; the best of each column in bold."""
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(_latex(sheet) for sheet in sheets)


def _latex(sheet: Sheet) -> str:
    rows = list(_lines(sheet.rows, _latex_cell))
    summary = list(_lines(sheet.summary, _latex_cell))
    lines = [
        f"% {_texed(sheet.title)}. {_texed(sheet.remark)}",
        f"\\begin{{tabular}}{{{'l' * sheet.names}{'r' * (len(sheet.columns) - sheet.names)}}}",
        "\\toprule",
        f"{' & '.join(map(_texed, sheet.columns))} \\\\",
        "\\midrule",
        *(f"{' & '.join(row)} \\\\" for row in rows),
        *(["\\midrule"] if summary else []),
        *(f"{' & '.join(row)} \\\\" for row in summary),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    return _noted(cell, _texed, r"\textbf{{{}}}", r"{} {{\scriptsize ({})}}")


TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "α": r"$\alpha$",
    "ρ": r"$\rho$",
    "–": "--",
    "−": "$-$",
    "…": r"\ldots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _texed(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def _lines(rows: Sequence[Row], write: Callable[[Cell], str]) -> Iterable[list[str]]:
    return ([write(cell) for cell in row.cells] for row in rows)


def _noted(cell: Cell, escaped: Callable[[str], str], bold: str, noted: str) -> str:
    text = escaped(cell.text)
    text = bold.format(text) if cell.best else text
    return noted.format(text, escaped(cell.note)) if cell.note else text

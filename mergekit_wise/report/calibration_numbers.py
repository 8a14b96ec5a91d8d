"""The page's table of calibration: the numbers behind its curves. Knows comparisons."""

from dataclasses import replace

from mergekit_wise.report.calibration_plots import PARTS, average_of
from mergekit_wise.report.calibration_tables import NAMES, text
from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.page_tables import table_of_mixtures
from mergekit_wise.report.table import Cell, Table
from mergekit_wise.results import At

MEANING = "Numbers of the shifts are averages over them. ECE, NLL and Brier score: lower is better; AUROC: higher."
SHOWN = ("ece", "nll", "brier", "auroc")
"""The numbers that have columns."""


def calibration_numbers(comparison: Comparison) -> Table:
    """A row per model and alpha: each number on the reference, and its average over the shifts; no rows without any."""

    def cells(curve: Curve, alpha: At) -> dict[str, Cell]:
        found = {}
        for name in SHOWN:
            for role in PARTS:
                value = average_of(comparison, curve, alpha, role, name)
                if value is not None:
                    found[f"{name} {role}"] = Cell(text(name, value), number=value)
        return found

    headings = {f"{name} {role}": f"{NAMES[name]}, {part}" for name in SHOWN for role, part in PARTS.items()}
    table = table_of_mixtures(comparison, cells, headings, f"Calibration on {comparison.suite}", MEANING)
    # The largest number of a column is marked as the best, and of most of these the lowest is.
    body = (replace(row, cells=tuple(replace(cell, best=False) for cell in row.cells)) for row in table.body)
    return replace(table, body=tuple(body))

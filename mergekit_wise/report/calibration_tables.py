"""The tables of calibration that commands print. Knows records; knows nothing of how tables are drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mergekit_wise.analysis import CALIBRATION, Calibration
from mergekit_wise.analysis.calibration import averaged
from mergekit_wise.report.best import best_marked
from mergekit_wise.report.table import Cell, Table
from mergekit_wise.results import Record, points_of
from mergekit_wise.wording import listed

NAMES = {
    "ece": "ECE (%)",
    "adaptive-ece": "Adaptive ECE (%)",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "auroc": "AUROC (%)",
    "accuracy-at-80": "Accuracy at 80 % coverage (%)",
}
"""What the numbers of `CALIBRATION` are called, with their units."""

PERCENTAGES = ("ece", "adaptive-ece", "auroc", "accuracy-at-80")

SHORT = {"ece": "ECE", "nll": "NLL", "brier": "Brier", "auroc": "AUROC", "accuracy-at-80": "Acc@80"}
"""What the columns are called where there is little room."""


def number(name: str, values: Mapping[str, float], unknown: str = "") -> str:
    """One of the numbers as text, with one decimal of a percentage and four of others; `unknown` if undefined."""
    return text(name, values.get(name), unknown)


def text(name: str, value: float | None, unknown: str = "") -> str:
    """The same for a value, or None."""
    if value is None:
        return unknown
    return f"{100 * value:.1f}" if name in PERCENTAGES else f"{value:.4f}"


def before_and_after(before: Calibration, after: Calibration) -> Table:
    """A row per number, before and after calibration."""
    rows = [
        (NAMES[name], number(name, before.values, "-"), number(name, after.values, "-"))
        for name in CALIBRATION
        if name in before.values or name in after.values
    ]
    return Table.of_texts(("", "Before", "After"), rows)


def calibration_table(records: Sequence[Record]) -> Table:
    """A row per data set of one model, a column per number; below, the average of the shifts."""
    rows = [(r.title, *(number(name, r.calibration, "-") for name in SHORT)) for r in records]
    shifts = [r.calibration for r in records if r.role == "shift"]
    if len(shifts) > 1:
        means = (text(name, averaged(shifts, name), "-") for name in SHORT)
        rows.append((f"Average of {len(shifts)} shifts", *means))
    marked = [index >= len(records) for index in range(len(rows))]
    return Table.of_texts(("Data set", *SHORT.values()), rows, marked)


def sweep_calibration(records: Sequence[Record]) -> Table:
    """A row per mixture: ECE and NLL on the reference, and their averages over the shifts."""
    parts = {"reference": "Ref.", "shift": "Shifts"}
    roles = [role for role in parts if any(record.role == role for record in records)]
    names = ("ece", "nll")
    rows: list[tuple[Cell | str, ...]] = []
    for point in points_of(records):
        found = [[r.calibration for r in records if (r.at, r.role) == (point, role)] for role in roles]
        cells = (_cell(name, averaged(each, name)) for name in names for each in found)
        rows.append((*(f"{value:g}" for value in point.numbers), *cells))
    heads = (f"{SHORT[name]} {parts[role].lower()}" for name in names for role in roles)
    swept = points_of(records)[0].names
    table = Table.of_cells((*swept, *heads), rows, [False] * len(rows), len(swept))
    return replace(table, body=best_marked(table.body, len(swept), lowest=True))


def _cell(name: str, value: float | None) -> Cell:
    return Cell(text(name, value, "-"), number=math.nan if value is None else value)


def undefined(records: Sequence[Record]) -> str:
    """A sentence on numbers that are missing in the tables; empty if none is."""
    lacking = [record for record in records if not record.calibration]
    several = [record for record in records if record.calibration and "nll" not in record.calibration]
    found = []
    if lacking:
        titles = listed(dict.fromkeys(record.title for record in lacking))
        found.append(f"not known for {titles} (logits that are not finite, or results of an earlier version: --redo)")
    if several:
        titles = listed(dict.fromkeys(record.title for record in several))
        found.append(f"NLL and Brier score are undefined for {titles} (several right classes, or an infinite NLL)")
    return f"Calibration: {'; '.join(found)}." if found else ""

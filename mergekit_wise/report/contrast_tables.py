"""The tables that ``wise compare`` prints. Knows comparisons; knows nothing of where they come from."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Protocol

from mergekit_wise.analysis import Estimate, Point
from mergekit_wise.analysis.contrast import Contrast
from mergekit_wise.report.table import Table, percent
from mergekit_wise.report.terminal_tables import AVERAGES


class Compared(Protocol):
    """A mixture and how it compares with another one in every column."""

    @property
    def point(self) -> Point | None:
        """Where it lies in its sweep."""

    @property
    def columns(self) -> tuple[Contrast, ...]:
        """Data set by data set, then the averages."""


def contrast_table(found: Sequence[Contrast]) -> Table:
    """A row per data set and average: both results, the difference, its interval and test, and the better model."""
    rows = [
        (
            AVERAGES.get(each.column, each.column),
            percent(each.first, ""),
            percent(each.second, ""),
            _signed(each.difference.value),
            _interval(each.difference),
            "" if each.p is None else f"{each.p:.2g}",
            {"first": "A", "second": "B", "": "cannot tell"}[each.better],
        )
        for each in found
    ]
    columns = ("Data set", "A", "B", "B - A", "95 % interval", "p", "Better")
    return Table.of_texts(columns, rows, [each.significant for each in found])


def matrix_table(found: Sequence[Compared]) -> Table:
    """A row per mixture and a column per data set and average: the difference, with a star if it is significant."""
    first = found[0]
    names = ("alpha",) if first.point is None else first.point.names
    rows = [
        (
            *(() if each.point is None else (f"{number:g}" for number in each.point.numbers)),
            *(_signed(one.difference.value) + (" *" if one.significant else "  ") for one in each.columns),
        )
        for each in found
    ]
    columns = (*names, *(AVERAGES.get(one.column, one.column) for one in first.columns))
    return replace(Table.of_texts(columns, rows), names=len(names))


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _interval(result: Estimate) -> str:
    return "" if isnan(result.low) else f"{_signed(result.low)} to {_signed(result.high)}"

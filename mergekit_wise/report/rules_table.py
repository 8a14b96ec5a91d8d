"""The table of rules and their controls, in ASCII."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mergekit_wise.analysis import Estimate
from mergekit_wise.report.best import best_marked
from mergekit_wise.report.table import Cell, Table, share

TITLES = {"reference": "Ref.", "shifts": "Shifts"}


class Result(Protocol):
    """What a rule achieves; see `api.rules.RuleResult`."""

    @property
    def name(self) -> str:
        """Of the rule."""

    @property
    def size(self) -> float:
        """Relative size of the update."""

    @property
    def values(self) -> tuple[Estimate, ...]:
        """Results by column."""

    @property
    def gains(self) -> tuple[Estimate, ...]:
        """Paired differences from the control."""

    @property
    def significant(self) -> tuple[bool, ...]:
        """Whether a gain is not zero."""


def rules_table(results: Sequence[Result], columns: Sequence[str]) -> Table:
    """A row per rule: its size, the reference and the average of the shifts, and its gains over its control."""
    rows: list[tuple[Cell | str, ...]] = [
        (
            each.name,
            f"{each.size:.3f}",
            *(share(value.value) for value in each.values),
            *(_gain(*both) for both in zip(each.gains, each.significant, strict=True)),
            *([""] * len(columns) if not each.gains else []),
        )
        for each in results
    ]
    gains = [f"Gain, {TITLES[name].lower()}" for name in columns]
    table = Table.of_cells(
        ("Rule", "Size", *(TITLES[name] for name in columns), *gains), rows, [False] * len(rows), names=2
    )
    return replace(table, body=best_marked(table.body, table.names))


def _gain(found: Estimate, significant: bool) -> str:
    """``+0.3 (-0.2 to 0.8)`` in points."""
    value, low, high = (100 * number + 0.0 for number in (found.value, found.low, found.high))
    return f"{value:+.1f} ({low:.1f} to {high:.1f})" + (" *" if significant else "")

"""The tables of a soup: the angles between its members' updates, and what greedy tried. Knows no terminal."""

import math
from collections.abc import Sequence
from dataclasses import replace

from mergekit_wise.merging.soup_geometry import Geometry
from mergekit_wise.report.best import best_marked
from mergekit_wise.report.table import Table, share
from mergekit_wise.results import Record

GEOMETRY_TITLE = "Members: relative change ||ft - zs|| / ||zs||, and angles between their updates in degrees"

NUMBERED = 8
"""Members beyond which the table has the smallest and the largest angle of each in place of all."""


Tried = tuple[str, Record, Record, bool]
"""A member that greedy tried: its name, what it achieves alone and what the soup achieves with it, whether added."""


def geometry_table(found: Geometry) -> Table:
    """A row per member: its relative change ||t_i - t_0|| / ||t_0||, and angles in degrees.

    They are the angle of its weights to the zero-shot model's, and of its update to the update of every member.
    """
    numbers = range(1, len(found.names) + 1)
    fixed = ("#", "Member", "Change", "To zs")
    each = [f"To #{number}" for number in numbers]
    columns = [*fixed, *(["Smallest angle", "Largest angle"] if len(each) > NUMBERED else each)]
    rows = []
    for number, name, length, to_start, angles in zip(
        numbers, found.names, found.lengths, found.to_start, found.angles, strict=True
    ):
        others = [angle for at, angle in enumerate(angles, 1) if at != number]
        if len(found.names) > NUMBERED:
            known = [angle for angle in others if not math.isnan(angle)] or [math.nan]
            shown = [_degrees(min(known)), _degrees(max(known))]
        else:
            shown = ["" if at == number else _degrees(angle) for at, angle in enumerate(angles, 1)]
        rows.append((str(number), name, f"{length:.3g}", _degrees(to_start), *shown))
    return Table.of_texts(columns, rows)


def greedy_table(tried: Sequence[Tried]) -> Table:
    """A row per member in the order of trying: accuracy alone, that of the soup with it, and whether it was added."""
    rows = [
        (name, share(alone.value), share(soup.value), "yes" if added else "no") for name, alone, soup, added in tried
    ]
    table = Table.of_cells(("Member", "Alone", "Soup with it", "Added"), rows, [added for *_, added in tried])
    return replace(table, body=best_marked(table.body, table.names))


def _degrees(angle: float) -> str:
    return "-" if math.isnan(angle) else f"{angle:.1f}"

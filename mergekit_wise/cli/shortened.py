"""Tables that a terminal of some lines can show: what stands out is kept, and how much is left out is counted.

Knows nothing of what a table is about.
"""

from dataclasses import replace

from mergekit_wise.report.table import Row, Table
from mergekit_wise.wording import plural

MOST_ROWS = 40
MOST_COLUMNS = 26
LAST_COLUMNS = 2
"""How many of the last columns are kept: averages come last."""


def shortened(table: Table) -> tuple[Table, str]:
    """A table with as many rows and columns as people read, and what is left out: ``61 more rows``.

    Marked rows are kept, and those with the best of a column. Of rows that are named by numbers, such as alphas, those
    that are kept lie evenly between the first and the last; of others, the first are kept.
    """
    left_out = []
    if len(table.body) > MOST_ROWS:
        left_out.append(plural(len(table.body) - MOST_ROWS, "more row"))
        table = replace(table, body=_rows(table.body))
    columns = len(table.columns)
    if columns > MOST_COLUMNS:
        left_out.append(plural(columns - MOST_COLUMNS, "more column"))
        kept = [*range(MOST_COLUMNS - LAST_COLUMNS), *range(columns - LAST_COLUMNS, columns)]
        body, summary = (
            tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in rows)
            for rows in (table.body, table.summary)
        )
        table = replace(table, columns=tuple(table.columns[place] for place in kept), body=body, summary=summary)
    return table, " and ".join(left_out)


def _rows(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """`MOST_ROWS` of more rows, in their order."""
    last = len(rows) - 1
    marked = [place for place, row in enumerate(rows) if row.marked]
    best = [place for place, row in enumerate(rows) if any(cell.best for cell in row.cells)]
    even: list[int] = []
    if all(_is_number(row.cells[0].text) for row in rows):
        even = [0, last, *_spread([round(step * last / (MOST_ROWS - 1)) for step in range(MOST_ROWS)])]
    order = list(dict.fromkeys([*marked, *best, *even, *range(last + 1)]))
    return tuple(rows[place] for place in sorted(order[:MOST_ROWS]))


def _spread(places: list[int]) -> list[int]:
    """Every second of the places first, so that any first part of them lies evenly."""
    return places if len(places) < 3 else [*_spread(places[::2]), *places[1::2]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

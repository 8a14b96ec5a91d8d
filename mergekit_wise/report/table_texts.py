"""The texts of a table that the page's reader can copy or save: as `wise report` writes them into files."""

import csv
import re
from collections.abc import Iterator, Mapping
from io import StringIO

from mergekit_wise.report.exports import as_latex, as_markdown
from mergekit_wise.report.table import Table
from mergekit_wise.results import no_formula

KINDS = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
"""What the texts are called, by the endings of their files."""


def table_texts(table: Table) -> Mapping[str, str]:
    """The table as each of `KINDS`."""
    return {"csv": table_csv(table), "md": as_markdown([table]), "tex": as_latex([table])}


def table_csv(table: Table) -> str:
    """The table as it is shown, with plain minus signs; notes below numbers have columns of their own."""
    rows = (*table.body, *table.summary)
    noted = [any(row.cells[place].note for row in rows) for place in range(len(table.columns))]

    def cells(texts: Iterator[tuple[str, str]]) -> list[str]:
        found = []
        for place, (text, note) in enumerate(texts):
            found += [text, note] if noted[place] else [text]
        return [_plain(text) for text in found]

    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(cells((name, f"{name}, note") for name in table.columns))
    for row in rows:
        writer.writerow(cells((cell.text, cell.note) for cell in row.cells))
    return file.getvalue()


_NUMBERS = re.compile(r"[-+]?[\d.]+( to [-+]?[\d.]+)?(\*| †)?")
"""A number or an interval with a mark behind it, which a spreadsheet takes for no formula."""


def _plain(text: str) -> str:
    """A text of which programs read the number; none for a dash, which stands for what is not known."""
    text = "" if text == "–" else text.replace("−", "-")
    try:
        float(text)
    except ValueError:
        return text if _NUMBERS.fullmatch(text) else no_formula(text)
    return text

"""Tables as text, of downloads and of users: their columns, rows and class numbers. Knows no data set."""

import csv
from collections.abc import Iterator
from pathlib import Path

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural

MAX_BYTES = 1 << 30
"""The size of the largest table that is read."""


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a user's table, separated by tabs, semicolons or commas, without blanks around cells.

    The separator is the commonest of the three in the first line. Raises SuiteError if the file cannot be read, has no
    row below the header, or has a row of another length; empty cells at a row's end are no cells.
    """
    refuse_web_page(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SuiteError(f"{path}: expected a table with at most {MAX_BYTES:,} bytes.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max("\t;,", key=first.count)
            lines = [[cell.strip() for cell in row] for row in csv.reader(file, delimiter=separator)]
    except FileNotFoundError:
        raise SuiteError(f"{path}: no such table.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"{path}: expected a table in UTF-8: {error}. Save it as CSV in UTF-8.") from error
    header, *rows = [line for line in lines if any(line)] or [[]]
    for number, row in enumerate(rows, 1):
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            raise SuiteError(f"{path}: its row {number} has {plural(len(row), 'cell')}, the header has {len(header)}.")
    return header, rows


def read_rows(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """The entries of each row in `columns`. Raises SuiteError if the file is not such a table."""
    refuse_web_page(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if absent := [column for column in columns if column not in header]:
                raise SuiteError(f"{path}: expected the column {absent[0]!r}, found {', '.join(header)[:200]!r}.")
            places = [header.index(column) for column in columns]
            yield from (tuple(row[place] for place in places) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise SuiteError(f"{path}: expected a table in CSV format: {error}. Download it again.") from error


def class_number(text: str, path: Path, row: int) -> int:
    """The class number in data row `row`, from 0. Raises SuiteError, naming the line, if the text is none."""
    if not text.isdecimal() or len(text) > 6:
        raise SuiteError(f"{path}: expected a class number in line {row + 2}, found {text[:40]!r}.")
    return int(text)

"""Tables in CSV format that come with data sets: chosen columns of each row, and class numbers. Knows no data set."""

import csv
from collections.abc import Iterator
from pathlib import Path

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError


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

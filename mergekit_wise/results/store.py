"""Records in a JSON Lines file: only ever appended to."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from mergekit_wise.errors import ResultsError
from mergekit_wise.results.record import Record

FIELDS = {field.name for field in fields(Record)}


def as_entry(record: Record) -> dict[str, object]:
    """A record as JSON, with accuracy and interval for readers that do not want to compute them."""
    low, high = record.interval
    return {**asdict(record), "accuracy": record.accuracy, "interval": [low, high]}


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add a line for each record. Raises ResultsError if the file cannot be written."""
    text = "".join(json.dumps(as_entry(record)) + "\n" for record in records)
    try:
        # A run that was killed may have left its last line torn: what comes now must not continue it.
        if path.exists() and not path.read_bytes().endswith((b"\n", b"")[:1]) and path.stat().st_size:
            text = "\n" + text
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ResultsError(
            f"{path}: results cannot be written: {error.strerror}. Choose another file with --results."
        ) from error


def read_records(path: Path) -> tuple[Record, ...]:
    """All records of a file, in its order. Raises ResultsError that names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: results cannot be read: {error}.") from error
    return tuple(_record(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _record(path: Path, number: int, line: str) -> Record:
    try:
        entry = json.loads(line)
        if not isinstance(entry, Mapping):
            raise TypeError("not an object")
        return Record(**{key: value for key, value in entry.items() if key in FIELDS})
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path}: line {number} is no record of this tool ({error}). Remove the line.") from error

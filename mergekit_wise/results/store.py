"""Records in a JSON Lines file: only ever appended to, by as many runs at a time as there are."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from math import isfinite, nan
from pathlib import Path

from mergekit_wise.errors import ResultsError
from mergekit_wise.results.analysis import ANALYSIS, Analysis
from mergekit_wise.results.record import Record

FIELDS = {field.name for field in fields(Record)}
ANALYSIS_FIELDS = {field.name for field in fields(Analysis)}
TAIL = 1 << 16
"""Bytes of a file's end that are looked at, at a time, for its last line."""


def as_entry(record: Record | Analysis) -> dict[str, object]:
    """A record as JSON, with the accuracy for readers that do not want to compute it."""
    entry = asdict(record)
    if isinstance(record, Analysis):
        # JSON has no NaN, which is what a number is that the predictions leave undefined.
        return {"kind": ANALYSIS, **entry, "values": {k: v if isfinite(v) else None for k, v in record.values.items()}}
    return {**entry, "accuracy": record.accuracy, "interval": list(record.interval), "missing": list(record.missing)}


def append_records(path: Path, records: Iterable[Record | Analysis]) -> None:
    """Add a line for each record, all in one write, after taking away what a killed run left of its last line.

    Raises ResultsError if the file cannot be written.
    """
    text = "".join(json.dumps(as_entry(record)) + "\n" for record in records).encode()
    try:
        with _alone(path) as file:
            _repair(file)
            while text:
                text = text[os.write(file, text) :]
    except OSError as error:
        raise ResultsError(
            f"{path}: results cannot be written: {error.strerror}. Choose another file with --results."
        ) from error


def require_writable(path: Path) -> None:
    """Raise ResultsError if a file cannot be written, before the work that it is for; nothing is made or changed."""
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ResultsError(
            f"{path}: cannot be written: {'a folder' if path.is_dir() else 'not allowed'}. Choose another file."
            if target.exists()
            else f"{path}: cannot be written: the folder {target} does not exist. Create it first."
        )


def read_records(path: Path) -> tuple[Record, ...]:
    """All records of a file, in its order; what a killed run left of its last line is passed over.

    Raises ResultsError that names the first line that is no record.
    """
    return tuple(entry for entry in _entries(path) if isinstance(entry, Record))


def read_analyses(path: Path) -> tuple[Analysis, ...]:
    """All analyses of a file, in its order. Raises ResultsError as `read_records` does."""
    return tuple(entry for entry in _entries(path) if isinstance(entry, Analysis))


def _entries(path: Path) -> Iterator[Record | Analysis]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: results cannot be read: {error}.") from error
    lines = text.split("\n")
    if _is_torn(lines[-1]):
        lines.pop()
    return (_entry(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _entry(path: Path, number: int, line: str) -> Record | Analysis:
    try:
        entry = json.loads(line)
        if not isinstance(entry, Mapping):
            raise TypeError("not an object")
        if entry.get("kind") == ANALYSIS:
            told = {key: value for key, value in entry.items() if key in ANALYSIS_FIELDS}
            values = {key: nan if value is None else value for key, value in told["values"].items()}
            return Analysis(**{**told, "values": values})
        known = {key: value for key, value in entry.items() if key in FIELDS}
        for key in {"interval", "missing"} & known.keys():
            known[key] = tuple(known[key])
        return Record(**known)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ResultsError(f"{path}: line {number} is no record of this tool ({error}). Remove the line.") from error


def _is_torn(line: str | bytes) -> bool:
    """Whether the end of a file is part of a line only: writing stopped before its end."""
    try:
        json.loads(line)
    except ValueError:
        return bool(line.strip())
    return False


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """The file, open for appending and reading, while no other run writes to it."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # Where there are no locks (Windows, some network disks) a line is still written in one go.
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _repair(file: int) -> None:
    """Make the file end with a whole line: a torn one goes, one that lacks only its end gets it."""
    size = os.fstat(file).st_size
    last, start = b"", size
    while start > 0 and b"\n" not in last:
        start = max(0, start - TAIL)
        os.lseek(file, start, os.SEEK_SET)
        last = os.read(file, min(TAIL, size - start - len(last))) + last
    last = last.rpartition(b"\n")[2]
    if _is_torn(last):
        os.ftruncate(file, size - len(last))
    elif last:
        os.write(file, b"\n")

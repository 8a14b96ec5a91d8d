"""Writes results files: records are appended to JSON Lines, also by several runs at once, and never changed."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from mergekit_wise.errors import ResultsError
from mergekit_wise.results.choices import WrittenChoice, as_json
from mergekit_wise.results.estimation import Estimation, estimation_entry
from mergekit_wise.results.record import ANALYSIS, Analysis, Record

BLOCK = 1 << 16
"""Bytes that are read at a time, backwards from a file's end, to find its last line."""


Entry = Record | Analysis | Estimation | WrittenChoice
"""What a line of a results file holds."""


def as_entry(record: Entry) -> dict[str, object]:
    """A record as JSON, with its accuracy for readers that do not compute it, unless it is of a task of one's own."""
    if isinstance(record, WrittenChoice):
        return as_json(record)
    if isinstance(record, Estimation):
        return estimation_entry(record)
    entry = asdict(record)
    if isinstance(record, Analysis):
        # JSON has no NaN, which stands for numbers that the predictions leave undefined.
        return {"kind": ANALYSIS, **entry, "values": {k: v if isfinite(v) else None for k, v in record.values.items()}}
    values = {name: value for name, value in record.values.items() if isfinite(value)}
    lists = {
        "interval": list(record.interval) if isfinite(record.interval[0]) else None,
        "missing": list(record.missing),
        "point": list(map(list, record.point)),
        "reliability": list(map(list, record.reliability)),
        "reported": list(record.reported),
    }
    share = {} if record.evaluator else {"accuracy": record.accuracy}
    return {**entry, **share, "values": values, **lists}


def append_records(path: Path, records: Iterable[Entry]) -> None:
    """Append a line per record; see `append_entries`."""
    append_entries(path, map(as_entry, records))


def append_entries(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Append a line per entry, all in one write, after removing an incomplete last line that a killed run left.

    Raises ResultsError if the file cannot be written; complete lines that it got before are kept.
    """
    text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    try:
        with _locked(path) as file:
            _repair(file)
            while text:
                text = text[os.write(file, text) :]
    except OSError as error:
        raise ResultsError(
            f"{path}: results cannot be written: {error.strerror}. Choose another file with --results, or run the same "
            "command again when this is settled."
        ) from error


def require_writable(path: Path) -> None:
    """Raise ResultsError, before any work is done, if a file cannot be written; nothing is created or changed."""
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ResultsError(
            f"{path}: cannot be written: {'a folder' if path.is_dir() else 'not allowed'}. Choose another file."
            if target.exists()
            else f"{path}: cannot be written: the folder {target} does not exist. Create it first."
        )


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file's descriptor, open for appending and reading, while no other run writes to it."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # Without locks (Windows, some network disks) each append is still a single write.
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _repair(file: int) -> None:
    """Make the file end with a complete line: remove an incomplete one, or add a missing line feed."""
    size = os.fstat(file).st_size
    last, start = b"", size
    while start > 0 and b"\n" not in last:
        start = max(0, start - BLOCK)
        os.lseek(file, start, os.SEEK_SET)
        last = os.read(file, min(BLOCK, size - start - len(last))) + last
    last = last.rpartition(b"\n")[2]
    if not last:
        return
    try:
        json.loads(last)
        os.write(file, b"\n")
    except (ValueError, RecursionError):
        os.ftruncate(file, size - len(last))

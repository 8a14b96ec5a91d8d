"""The training log, in JSON Lines: one line for each step, epoch and validation. Knows no model."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from mergekit_wise.errors import OutputError


class TrainingLog:
    """Appends to a file, or does nothing if the path is None.

    Entries of an earlier run for steps after `taken`, which are taken again, are removed: each step is logged once.
    """

    def __init__(self, path: Path | None, taken: int) -> None:
        self._path = path
        if path is not None:
            kept = "".join(_line(entry) for entry in _entries(path) if taken and entry.get("step", 0) <= taken)
            if kept and _text(path).startswith(kept):
                self._write("a", "", len(kept.encode()))  # a kill at this moment loses no line
            else:
                self._write("w", kept)

    def add(self, event: str, **facts: Any) -> None:
        """Append a line. A number that is not finite becomes null: JSON has no other way to write it."""
        if self._path is not None:
            self._write("a", _line({"event": event, **facts}))

    def validated(self, epoch: int) -> bool:
        """Return whether the log holds the validation of an epoch."""
        if self._path is None:
            return False
        return any(e.get("event") == "validation" and e.get("epoch") == epoch for e in _entries(self._path))

    def _write(self, mode: str, text: str, size: int | None = None) -> None:
        assert self._path is not None
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(text)
                if size is not None:
                    file.truncate(size)
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot write the log: {error.strerror}. Choose another file with --log."
            ) from error


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(_finite(entry), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def _text(path: Path) -> str:
    """Read a file; empty if there is none, or no text in it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _entries(path: Path) -> list[Mapping[str, Any]]:
    """Read the lines of a file, without an incomplete last line that a killed run left."""
    entries = []
    for line in _text(path).splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, Mapping):
            entries.append(entry)
    return entries

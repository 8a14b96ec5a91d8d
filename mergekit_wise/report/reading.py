"""Results files as measurements: what can be used is used, what cannot is told.

`results.read_records` stops at the first line that is not its own. A report draws the rest, so this reader takes every
line for itself. Knows nothing of curves, suites and pages.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.errors import ResultsError
from mergekit_wise.report.finding import Finding, as_finding
from mergekit_wise.report.measurement import Measurement, as_measurement
from mergekit_wise.report.values import as_text


@dataclass(frozen=True, slots=True)
class Reading:
    """All that files hold, in their order, and remarks on what was left out."""

    measurements: tuple[Measurement, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def read_results(paths: Sequence[Path]) -> Reading:
    """Measurements and findings of JSON Lines files.

    Torn and foreign lines are left out and noted. Raises ResultsError if a file cannot be read, or if none of them
    holds a measurement.
    """
    measurements: list[Measurement] = []
    findings: list[Finding] = []
    notes: list[str] = []
    files = _names(paths)
    for path, name in files.items():
        entries, complaints = _entries(path)
        before = len(measurements)
        for number, entry in entries:
            try:
                if entry.get("kind") == "analysis":
                    findings.append(as_finding(name, entry))
                else:
                    measurements.append(as_measurement(name, entry))
            except ValueError as error:
                complaints.append((number, str(error)))
            except RecursionError:
                complaints.append((number, "nested too deeply"))
        shown = path.name if name == as_text(path.stem) else str(path)
        notes += _as_notes(shown, complaints)
        if len(measurements) == before and len(files) > 1:
            notes.append(f"{shown} holds no record, so nothing of it is drawn.")
    if not measurements:
        named = ", ".join(map(str, files))
        expected = "expected JSON Lines as 'wise sweep' and 'wise eval' write them"
        raise ResultsError(" ".join([f"{named}: no record found; {expected}.", *notes[:3]]))
    return Reading(tuple(measurements), tuple(findings), tuple(notes))


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each different file: its stem if that tells them apart, else its path."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    stems = [path.stem for path in first.values()]
    return {path: as_text(path.stem if stems.count(path.stem) == 1 else str(path)) for path in first.values()}


def _entries(path: Path) -> tuple[list[tuple[int, Mapping[str, Any]]], list[tuple[int, str]]]:
    """The objects of a file with the numbers of their lines, and what is wrong with the other lines."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ResultsError(f"{path}: results cannot be read: {error.strerror}.") from error
    entries: list[tuple[int, Mapping[str, Any]]] = []
    complaints: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            torn = number == len(lines) and line.lstrip().startswith(b"{")
            complaints.append((number, "torn: the run that wrote it was stopped" if torn else "not JSON"))
            continue
        if isinstance(entry, dict):
            entries.append((number, entry))
        else:
            complaints.append((number, "not a JSON object"))
    return entries, complaints


def _as_notes(file: str, complaints: Iterable[tuple[int, str]]) -> list[str]:
    """One note for each kind of complaint, with the lines that it is about."""
    lines: dict[str, list[int]] = {}
    for number, complaint in complaints:
        lines.setdefault(complaint, []).append(number)
    return [f"{file}: {_listed(numbers)} left out: {complaint}." for complaint, numbers in lines.items()]


def _listed(numbers: Sequence[int], most: int = 5) -> str:
    shown = ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
    return f"line {shown} is" if len(numbers) == 1 else f"lines {shown} are"

"""Reads results files: strictly, so that runs resume on records they can rely on, or leniently, for reports.

The strict mode refuses the first line that is not a record of this tool; the lenient mode uses every line that it can
and notes the others. Knows nothing of curves and pages.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mergekit_wise.errors import ResultsError
from mergekit_wise.results.choices import CHOICE, WrittenChoice, as_choice
from mergekit_wise.results.dynamic import DYNAMIC, as_findings
from mergekit_wise.results.estimation import ESTIMATE, Estimation, read_estimation
from mergekit_wise.results.measurement import Finding, Measurement, as_finding, as_measurement, as_number, as_text
from mergekit_wise.results.record import ANALYSIS, Analysis, Record
from mergekit_wise.wording import shown

FIELDS = {kind: {field.name for field in fields(kind)} for kind in (Record, Analysis)}
INCOMPLETE = "not JSON, or incomplete because the run that wrote it was stopped"
"""The problem of a last line without a line feed that is not JSON."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that results files hold, each kind in order, and notes on what was left out."""

    measurements: tuple[Measurement, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    estimations: tuple[Estimation, ...] = ()
    choices: tuple[WrittenChoice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """A line's number and its JSON object, or what is wrong with it."""

    number: int
    entry: Mapping[str, Any]
    problem: str = ""


def read_records(path: Path) -> tuple[Record, ...]:
    """All records of a file, in order; an incomplete last line, as a killed run leaves it, is skipped.

    Raises ResultsError that names the first line that is not a record.
    """
    return tuple(entry for entry in _read_strictly(path) if isinstance(entry, Record))


def read_analyses(path: Path) -> tuple[Analysis, ...]:
    """All analyses of a file, in order. Raises ResultsError like `read_records`."""
    return tuple(entry for entry in _read_strictly(path) if isinstance(entry, Analysis))


def read_estimations(path: Path) -> tuple[Estimation, ...]:
    """All lines of a file with estimates, in order. Raises ResultsError like `read_records`."""
    return tuple(entry for entry in _read_strictly(path) if isinstance(entry, Estimation))


def read_choices(path: Path) -> tuple[WrittenChoice, ...]:
    """All choices of a file, in order. Raises ResultsError like `read_records`."""
    return tuple(entry for entry in _read_strictly(path) if isinstance(entry, WrittenChoice))


def read_results(paths: Sequence[Path]) -> Reading:
    """All measurements and findings of several files; lines that cannot be used are left out and noted.

    Raises ResultsError if a file cannot be read, or if no file holds a measurement.
    """
    measurements: list[Measurement] = []
    findings: list[Finding] = []
    estimations: list[Estimation] = []
    choices: list[WrittenChoice] = []
    notes: list[str] = []
    files = _names(paths)
    for path, name in files.items():
        problems: list[tuple[int, str]] = []
        before = len(measurements)
        for line in _lines(path):
            try:
                if line.problem:
                    raise ValueError(line.problem)
                if line.entry.get("kind") == ANALYSIS:
                    findings.append(as_finding(name, line.entry))
                elif line.entry.get("kind") == ESTIMATE:
                    estimations.append(read_estimation(line.entry))
                elif line.entry.get("kind") == DYNAMIC:
                    findings += as_findings(name, line.entry)
                elif line.entry.get("kind") == CHOICE:
                    choices.append(as_choice(name, line.entry))
                else:
                    measurements.append(as_measurement(name, line.entry))
            except ValueError as error:
                problems.append((line.number, str(error)))
            except RecursionError:
                problems.append((line.number, "nested too deeply"))
        shown = path.name if name == as_text(path.stem) else str(path)
        notes += _as_notes(shown, problems)
        if len(measurements) == before and len(files) > 1:
            notes.append(f"{shown} holds no record, so nothing of it is shown.")
    if not measurements:
        named = ", ".join(map(str, files))
        expected = "expected JSON Lines as written by 'wise sweep' and 'wise eval'"
        raise ResultsError(" ".join([f"{named}: no record found; {expected}.", *notes[:3]]))
    return Reading(tuple(measurements), tuple(findings), tuple(notes), tuple(estimations), tuple(choices))


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of a file that are not blank."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ResultsError(f"{path}: results cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            yield _Line(number, {}, "not JSON")  # also as the last line: runs write ASCII, so this is another file
            continue
        except (ValueError, RecursionError):
            yield _Line(number, {}, INCOMPLETE if number == len(lines) else "not JSON")
            continue
        yield _Line(number, entry) if isinstance(entry, dict) else _Line(number, {}, "not a JSON object")


def _read_strictly(path: Path) -> Iterator[Record | Analysis | Estimation | WrittenChoice]:
    lines = (line for line in _lines(path) if line.problem != INCOMPLETE and line.entry.get("kind") != DYNAMIC)
    return (_strict(path, line) for line in lines)


def _strict(path: Path, line: _Line) -> Record | Analysis | Estimation | WrittenChoice:
    try:
        if line.problem:
            raise ValueError(line.problem)
        if line.entry.get("kind") == ESTIMATE:
            return read_estimation(line.entry)
        if line.entry.get("kind") == CHOICE:
            return as_choice("", line.entry)
        if line.entry.get("kind") == ANALYSIS:
            known = {key: value for key, value in line.entry.items() if key in FIELDS[Analysis]}
            values = {key: nan if value is None else value for key, value in known["values"].items()}
            analysis = Analysis(**{**known, "values": values})
            _require_types(analysis)
            return analysis
        known = {key: value for key, value in line.entry.items() if key in FIELDS[Record]}
        if known.get("interval", ()) is None and known.get("evaluator"):  # of a score without items
            del known["interval"]
        for key in {"interval", "missing", "reported"} & known.keys():
            known[key] = tuple(known[key])
        known["reliability"] = tuple(map(tuple, known.get("reliability", ())))
        known["point"] = tuple((name, value) for name, value in known.get("point", ()))
        for key in ("value", "interval"):
            # NaN, which JSON does not have, would be taken for a number that was not given.
            numbers = known.get(key, ())
            if not all(map(isfinite, numbers if isinstance(numbers, tuple) else (numbers,))):
                raise ValueError(f"{key} is not finite")
        record = Record(**known)
        _require_types(record)
        if not all(map(isfinite, record.calibration.values())):
            raise ValueError("calibration is not finite")
        if record.correct is None and not record.evaluator:
            raise ValueError("correct is None")
        if not 0 <= (record.correct or 0) <= record.total or not record.total or not 0 <= record.value <= 1:
            raise ValueError("an impossible count or value")
        return record
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ResultsError(
            f"{path}: line {line.number} is not a record of this tool ({error}). Remove the line."
        ) from error


def _require_types(entry: Record | Analysis) -> None:
    """Raise ValueError if a field has another type than it is declared with."""
    for field in fields(entry):
        value = getattr(entry, field.name)
        if not _is_a(value, field.type):
            raise ValueError(f"{field.name} is {shown(repr(value), 40)}")


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a declared type: a class, None, or a union, literal, mapping or tuple of these."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return value in arguments
    if get_origin(kind) is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, tuple) and arguments[-1] is ... else arguments
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if get_origin(kind) is Mapping:
        return isinstance(value, dict) and all(_is_a(entry, arguments[1]) for entry in value.values())
    if arguments:
        return any(_is_a(value, option) for option in arguments)
    if kind is float:
        return isinstance(value, float) or as_number(value) is not None
    return kind is Any or (type(value) is kind if kind is int else isinstance(value, kind))


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each distinct file: its stem, or its path if another file has the same stem."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    stems = [path.stem for path in first.values()]
    return {path: as_text(path.stem if stems.count(path.stem) == 1 else str(path)) for path in first.values()}


def _as_notes(file: str, problems: Iterable[tuple[int, str]]) -> list[str]:
    """One note for each kind of problem, with the numbers of its lines."""
    lines: dict[str, list[int]] = {}
    for number, problem in problems:
        lines.setdefault(problem, []).append(number)
    return [f"{file}: {_listed(numbers)} skipped: {problem}." for problem, numbers in lines.items()]


def _listed(numbers: Sequence[int], most: int = 5) -> str:
    shown = ", ".join(map(str, numbers[:most])) + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
    return f"line {shown} was" if len(numbers) == 1 else f"lines {shown} were"

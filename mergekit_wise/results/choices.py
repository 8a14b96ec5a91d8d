"""What a sweep concluded, as a line of its results file: whoever shows the results draws it and does not choose again.

A choice names the mixtures by their weights and the data sets by their settings, so that it is found again among
records. Knows how values become JSON and are read back; knows nothing of how mixtures are chosen.
"""

import math
import shlex
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import groupby
from typing import Any, Union, get_args, get_origin

from mergekit_wise.analysis import Choice, Point
from mergekit_wise.results.identity import IDENTITY, setting_of
from mergekit_wise.results.measurement import MAX_ALPHA, as_number, as_text
from mergekit_wise.results.record import Record, column_names

CHOICE = "choice"
"""Value of ``kind`` in a choice's line of a results file."""

COMMANDS = ("merge", "zeroshot")
"""The commands of ``wise`` that a choice's line may call: a merge, and the head that it may need before."""

MAX_LINE = 4000
"""Characters of a text that are kept: a reason is a sentence or two, a command names files."""

MAX_NUMBER = 1e6
"""Largest absolute number that is accepted."""


@dataclass(frozen=True, slots=True)
class ChosenAmong:
    """A mixture that was measured: where it lies in the sweep, and the fingerprint of its weights."""

    point: Point
    weights: str


@dataclass(frozen=True, slots=True)
class ChosenOn:
    """A data set whose results are in the choice's tables.

    Attributes:
        dataset, role, data: as in a `Record`.
        column: its name in the choice's columns.
        measurement: `setting_of` the records on it.
    """

    dataset: str
    role: str
    column: str
    data: str
    measurement: str


@dataclass(frozen=True, slots=True)
class WrittenChoice:
    """A sweep's conclusion with all that says what it is about.

    Attributes:
        model, suite, pair, rule: as in a `Record`.
        swept: the parameters that the sweep varied.
        mixtures: all mixtures that were compared, ascending.
        sets: the reference, if there is one, and the shifts.
        choice: the conclusion.
        merge_command: the line that writes the recommended mixture; "" if it is not known.
        source: name of the results file that it was read from; not written.
    """

    model: str
    suite: str
    pair: str
    rule: str
    swept: tuple[str, ...]
    mixtures: tuple[ChosenAmong, ...]
    sets: tuple[ChosenOn, ...]
    choice: Choice
    merge_command: str = ""
    source: str = ""


def choice_of(records: Sequence[Record], choice: Choice, merge_command: str = "") -> WrittenChoice:
    """The line for a choice among the mixtures of one sweep, from its records."""
    names = column_names(records)
    shown = [record for record in records if record.role != "companion"]
    mixtures = {record.at: record.weights for record in shown if record.at is not None}
    sets = {record.dataset: record for record in shown}
    first = shown[0]
    return WrittenChoice(
        model=first.model,
        suite=first.suite,
        pair=first.pair,
        rule=first.rule,
        swept=choice.recommendation.point.names,
        mixtures=tuple(ChosenAmong(point, mixtures[point]) for point in sorted(mixtures)),
        sets=tuple(
            ChosenOn(name, row.role, names[name], row.data, setting_of({key: getattr(row, key) for key in IDENTITY}))
            for name, row in sets.items()
        ),
        choice=choice,
        merge_command=merge_command,
    )


def is_new(written: WrittenChoice, earlier: Iterable[WrittenChoice]) -> bool:
    """Whether a file that holds `earlier` lacks this choice, or holds another one of the same results after it.

    The merge line does not count: it names the checkpoints by where they lie, which may change.
    """
    about = (written.model, written.suite, written.sets)
    same = [each for each in earlier if (each.model, each.suite, each.sets) == about]
    return not same or as_json(replace(same[-1], merge_command="")) != as_json(replace(written, merge_command=""))


def as_json(written: WrittenChoice) -> dict[str, Any]:
    """The line's object. Numbers that are not finite, which JSON lacks, become null."""
    found: dict[str, Any] = _encoded(written)
    del found["source"]
    return {"kind": CHOICE, **found}


def as_choice(source: str, entry: Mapping[str, Any]) -> WrittenChoice:
    """The choice that a line holds; unknown fields are ignored. Raises ValueError with the reason if it holds none."""
    found: WrittenChoice = _decoded(WrittenChoice, entry)
    if not found.mixtures or not found.sets:
        raise ValueError("a choice among nothing")
    return replace(found, merge_command=_safe_command(found.merge_command), source=source)


def _safe_command(text: str) -> str:
    """The command with every word quoted anew, so that a shell runs `COMMANDS` and nothing else; "" for any other."""
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    parts = [list(part) for is_end, part in groupby(words, lambda word: word == "&&") if not is_end]
    known = all(part[0] == "wise" and part[1:2] and part[1] in COMMANDS for part in parts)
    return " && ".join(map(shlex.join, parts)) if known else ""


def _encoded(value: Any) -> Any:
    match value:
        case Point():
            return [list(pair) for pair in value.values]
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_encoded(each) for each in value]
        case Mapping():
            return {key: _encoded(each) for key, each in value.items()}
        case _ if is_dataclass(value):
            return {field.name: _encoded(getattr(value, field.name)) for field in fields(value)}
    return value


def _decoded(kind: Any, value: Any) -> Any:
    """A value of a declared type from what `_encoded` made of it. Raises ValueError."""
    arguments = get_args(kind)
    if kind is Point:
        return _point(value)
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value)
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _decoded(next(each for each in arguments if each is not type(None)), value)
    if get_origin(kind) is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, list) and arguments[-1] is ... else arguments
        if not isinstance(value, list) or len(value) != len(kinds):
            raise ValueError("a choice with a list that is none")
        return tuple(_decoded(*pair) for pair in zip(kinds, value, strict=True))
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError("a choice with an object that is none")
        return {as_text(key): _decoded(arguments[1], each) for key, each in value.items()}
    if kind is float:
        number = as_number(value)
        if (number is None and value is not None and not isinstance(value, float)) or abs(number or 0.0) > MAX_NUMBER:
            raise ValueError("a choice with an impossible number")
        return math.nan if number is None else number
    if type(value) is not kind:
        raise ValueError(f"a choice with {as_text(value)[:40]!r} in place of a {kind.__name__}")
    return as_text(value, MAX_LINE) if kind is str else value


def _object(kind: type, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"a choice without its {kind.__name__}")
    known = {field.name: field.type for field in fields(kind)}
    given = {name: _decoded(known[name], each) for name, each in value.items() if name in known}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"a choice with an incomplete {kind.__name__}") from error


def _point(value: Any) -> Point:
    try:
        pairs = tuple((as_text(name), as_number(number)) for name, number in value)
    except (TypeError, ValueError) as error:
        raise ValueError("a choice with an impossible mixture") from error
    if not pairs or any(number is None or abs(number) > MAX_ALPHA for _, number in pairs):
        raise ValueError("a choice with an impossible mixture")
    return Point(tuple((name, number) for name, number in pairs if number is not None))

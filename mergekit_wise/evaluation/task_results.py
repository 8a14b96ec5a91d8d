"""What an evaluator printed or returned, checked, as results of data sets. Trusts none of it; runs nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.own_evaluator import TaskResult
from mergekit_wise.wording import did_you_mean, listed, plural, shown

FIELDS = ("correct", "total", "score", "items", "metric", "values", "title")
"""What a result may hold."""

MOST_SETS, MOST_ITEMS, MOST_VALUES = 1000, 2_000_000, 1000
LONGEST = 200
"""Characters of a name."""

ROUNDING = 0.005
"""How far a score may lie from the mean of its items, because people round what they print."""

FORM = 'a result such as {"correct": 812, "total": 1000}, {"score": 0.43} or {"items": [0.2, 0.7, 1]}'

IN_RANGE = (
    "Scores lie in [0, 1], larger is better: divide a percentage by 100, and make a score of a loss or an error, for "
    "example exp(-loss) or 1 - error."
)


def parse_results(value: Any, who: str, name: str) -> tuple[TaskResult, ...]:
    """The results that a value stands for: of one data set, which gets `name`, or of several by their names.

    `who` begins messages. Raises SuiteError for anything that is no result, or not in [0, 1].
    """
    if isinstance(value, Sequence) and value and all(isinstance(each, TaskResult) for each in value):
        results = tuple(_checked(each, who) for each in value)
    elif isinstance(value, Mapping) and value and all(isinstance(each, Mapping) for each in value.values()):
        results = tuple(_result(each, f"{who}: {shown(str(key))}", str(key)) for key, each in value.items())
    elif isinstance(value, Mapping):
        results = (_result(value, who, name),)
    elif _number(value) is not None:
        results = (_result({"score": value}, who, name),)
    else:
        raise SuiteError(f"{who}: expected {FORM}, found {_described(value)}.")
    if len(results) > MOST_SETS:
        raise SuiteError(f"{who}: reported {len(results):,} data sets; at most {MOST_SETS:,} are read.")
    names = [each.dataset for each in results]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise SuiteError(f"{who}: reported the data set {shown(twice)} twice. Give each its own name.")
    return results


def require_same(results: Sequence[TaskResult], before: Mapping[str, tuple[str, int]], who: str) -> None:
    """Raise SuiteError unless the results are of the data sets `before`, which may be none yet.

    `before` holds the metric and the number of items of each by its name.
    """
    if not before:
        return
    found = {each.dataset: (each.metric, count_of(each)) for each in results}
    if found.keys() != before.keys():
        raise SuiteError(
            f"{who}: reported {listed(map(shown, found))} for one model and {listed(map(shown, before))} for another; "
            "only results on the same data sets can be compared. Report all for every model. Where the evaluator "
            "was changed since then, --redo measures all again."
        )
    for name, (metric, count) in found.items():
        if metric != before[name][0]:
            raise SuiteError(f"{who}: {shown(name)}: the metric is {shown(metric)}, and was {shown(before[name][0])}.")
        if count != before[name][1]:
            raise SuiteError(
                f"{who}: {shown(name)}: {plural(count, 'item')} for one mixture and {before[name][1]:,} for another; "
                "every model must be scored on the same items, in the same order. Give items that failed the score 0."
            )


def count_of(result: TaskResult) -> int:
    """The number of items; 1 for a score of the whole data set."""
    if result.items is not None:
        return len(result.items)
    return result.total if result.total is not None else 1


def _result(given: Mapping[Any, Any], who: str, name: str) -> TaskResult:
    unknown = [str(key) for key in given if key not in FIELDS]
    if unknown:
        raise SuiteError(
            f"{who}: {shown(unknown[0])!r} is no part of a result; it may hold {', '.join(FIELDS)}."
            f'{did_you_mean(unknown[0], FIELDS)} Other numbers in [0, 1] go under "values".'
        )
    items = None if given.get("items") is None else _items(given["items"], who)
    correct, total, score = (given.get(field) for field in ("correct", "total", "score"))
    counted = correct is not None or total is not None
    if counted and (items is not None or score is not None):
        raise SuiteError(f"{who}: found counts beside {'items' if items is not None else 'a score'}. Give one of them.")
    result = TaskResult(
        dataset=name,
        metric=_text(given.get("metric"), who, "metric") or ("accuracy" if counted else "score"),
        items=items,
        correct=_count(correct, who, "correct") if counted else None,
        total=_count(total, who, "total") if counted else None,
        score=None if score is None else _share(score, who, "score"),
        values=_values(given.get("values"), who),
        title=_text(given.get("title"), who, "title") or name,
    )
    if items is None and score is None and not counted:
        raise SuiteError(f"{who}: expected {FORM}, found {_described(given)}.")
    if items is None or result.score is None:
        return _checked(result, who)
    mean = float(items.mean())
    if abs(mean - result.score) > ROUNDING:
        raise SuiteError(
            f"{who}: score {result.score:g} is not the mean of its {plural(len(items), 'item')}, {mean:.4g}, and "
            'models are compared by items. Report the mean, with the other number under "values"; or the score without '
            "items, which is compared without intervals."
        )
    return _checked(replace(result, score=None), who)


def _checked(result: TaskResult, who: str) -> TaskResult:
    """A result that an evaluator may have made itself. Raises SuiteError."""
    name = _text(result.dataset, who, "name of a data set")
    if not name:
        raise SuiteError(f"{who}: a data set has an empty name.")
    kinds = [result.items is not None, result.correct is not None or result.total is not None, result.score is not None]
    if kinds.count(True) != 1:
        raise SuiteError(
            f"{who}: expected either items, counts or a score of {shown(name)}, found {kinds.count(True)}."
        )
    if kinds[1]:
        correct, total = _count(result.correct, who, "correct"), _count(result.total, who, "total")
        if not 0 <= correct <= total or not total:
            raise SuiteError(f"{who}: {correct:,} correct of {total:,} is no share. Expected 0 <= correct <= total.")
    return TaskResult(
        name,
        _text(result.metric, who, "metric") or "score",
        None if result.items is None else _items(result.items, who),
        result.correct,
        result.total,
        None if result.score is None else _share(result.score, who, "score"),
        _values(result.values, who),
        _text(result.title, who, "title") or name,
    )


def _items(given: Any, who: str) -> NDArray[np.float64]:
    """Scores of items, float64 [N]."""
    if isinstance(given, str | bytes | Mapping):
        raise SuiteError(f'{who}: "items" is {_described(given)}; expected a list of numbers.')
    if not isinstance(given, list | tuple | np.ndarray):  # a command prints lists, and needs no torch
        import torch

        if isinstance(given, torch.Tensor):  # also on a device, with a gradient, or of a type that NumPy has not
            given = given.detach().cpu()
            given = given.double() if given.is_floating_point() else given
    try:
        items = np.asarray(given)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        raise SuiteError(f'{who}: "items" is no list of numbers.') from None
    if items.dtype.kind not in "biuf" or items.ndim != 1:
        what = f"of {items.ndim} dimensions" if items.ndim != 1 else "that are not all numbers"
        raise SuiteError(f'{who}: "items" has entries {what}; expected a list with one number for each item.')
    if not 0 < len(items) <= MOST_ITEMS:
        raise SuiteError(f'{who}: "items" has {len(items):,} entries; expected from 1 to {MOST_ITEMS:,}.')
    found: NDArray[np.float64] = items.astype(np.float64)
    wrong = np.flatnonzero(~((found >= 0) & (found <= 1)))
    if len(wrong):
        raise SuiteError(f"{who}: item {wrong[0]} has the score {found[wrong[0]]:g}. {IN_RANGE}")
    return found


def _values(given: Any, who: str) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > MOST_VALUES:
        raise SuiteError(f'{who}: "values" is {_described(given)}; expected numbers in [0, 1] by their names.')
    found: dict[str, float] = {}
    for key, value in given.items():
        name = _text(key, who, "name of a value")
        if not name or name in found:
            raise SuiteError(f'{who}: "values" has {f"{shown(name)} twice" if name else "a number without a name"}.')
        found[name] = _share(value, who, f"{name} in values")
    return found


def _share(given: Any, who: str, what: str) -> float:
    number = _number(given)
    if number is None:
        raise SuiteError(f"{who}: {shown(what)} is {_described(given)}; expected a number in [0, 1].")
    if not 0 <= number <= 1:
        raise SuiteError(f"{who}: {shown(what)} is {number:g}. {IN_RANGE}")
    return number


def _count(given: Any, who: str, what: str) -> int:
    """A whole number, also as NumPy and torch have it."""
    number = _number(given)
    if number is None or number != int(number) or not 0 <= number < 10**12:
        raise SuiteError(
            f'{who}: "{what}" is {_described(given)}; expected a whole number of "correct" and of "total".'
        )
    return int(number)


def _number(given: Any) -> float | None:
    """A finite number; None for anything else, truth values included."""
    if isinstance(given, bool | str | bytes) or given is None:
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last by a torch tensor of several elements
        return None
    return number if isfinite(number) else None


def _text(given: Any, who: str, what: str) -> str:
    if given is None:
        return ""
    if not isinstance(given, str) or len(given) > LONGEST or not given.isprintable():
        raise SuiteError(f"{who}: the {what} is {_described(given)}; expected a text of at most {LONGEST} characters.")
    return given.strip()


def _described(given: Any) -> str:
    """A value for a message, short however large it is."""
    if isinstance(given, Mapping):
        return f"an object of {listed((shown(str(key), 20) for key in list(given)[:9]), 3) or 'nothing'}"
    if isinstance(given, list | tuple):
        return f"a list of {plural(len(given), 'value')}"
    if isinstance(given, float) and not isfinite(given):
        return f"{given}, which is no number"
    if isinstance(given, int) and not -(10**20) < given < 10**20:
        return "a huge number"
    return (
        shown(repr(given), 40)
        if isinstance(given, str | int | float | bytes) or given is None
        else type(given).__name__
    )

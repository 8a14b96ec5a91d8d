"""The parameters of the rules that a sweep can vary, as ``--sweep`` names them. Knows names and numbers, no weights."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from math import prod

from mergekit_wise.analysis.point import ALPHA, TOLERANCE, Point
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.rules import MAX_ALPHAS, Rules, parse_numbers

FIRST, LAST = "depth-first", "depth-last"
"""The alphas of the first and of the last block, the two ends of ``--depth-alpha``."""

EXPECTED = f"{ALPHA}, {ALPHA}[PATTERN], {FIRST}, {LAST} or {TOLERANCE}"

_PATTERN = re.compile(rf"{ALPHA}\[(.+)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter and the values that a sweep gives it, ascending, each once."""

    name: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"--sweep {self.name}"


def parse_axis(text: str) -> Axis:
    """``PARAM=RANGE``, with a range as `parse_alphas` reads it: ``depth-first=0:0.6:0.2``. Raises UsageError."""
    name, equals, numbers = text.rpartition("=")
    name = name.strip()
    if not equals or not (name in (ALPHA, FIRST, LAST, TOLERANCE) or pattern_of(name)):
        raise UsageError(
            f"--sweep {text}: expected PARAM=RANGE, where PARAM is {EXPECTED}, for example {FIRST}=0:0.6:0.2."
        )
    values = parse_numbers(numbers, f"--sweep {text}")
    for value in values:
        with_point(Rules(), Point(((name, value),)), f"--sweep {text}")
    return Axis(name, tuple(value + 0.0 for value in values))


def pattern_of(name: str) -> str:
    """The pattern of the tensors whose alpha a parameter is; empty for every other parameter."""
    found = _PATTERN.fullmatch(name)
    return found[1] if found else ""


def grid(axes: Sequence[Axis]) -> tuple[Point, ...]:
    """All combinations of the axes' values, ascending.

    Raises UsageError unless there are one or two axes of different parameters, with no more than 1001 points.
    """
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):
        raise UsageError(f"--sweep {names[0]} is given twice. List all its values in one: --sweep '{names[0]}=0,0.5,1'")
    if len(axes) > 2:
        raise UsageError(f"--sweep: at most two parameters make a grid, found {len(axes)}: {', '.join(names)}.")
    count = prod(len(axis.values) for axis in axes)
    if count > MAX_ALPHAS:
        raise UsageError(
            f"--sweep: {' x '.join(names)} has {count:,} points, more than {MAX_ALPHAS}. Take larger steps."
        )
    return tuple(sorted(Point(tuple(zip(names, each, strict=True))) for each in product(*(a.values for a in axes))))


def with_point(rules: Rules, point: Point, given: str = "") -> Rules:
    """The rules with the values of a point.

    The alpha of a pattern comes before all patterns of the rules, because the first one that matches decides. An end of
    the depth that neither the point nor the rules give is the alpha of all other tensors.

    Raises UsageError, which begins with `given`, if there is no such parameter or a value is impossible.
    """
    swept = dict(point.values)
    if unknown := [name for name in swept if name not in (ALPHA, FIRST, LAST, TOLERANCE) and not pattern_of(name)]:
        raise UsageError(f"{unknown[0]} is no parameter of a rule. Expected {EXPECTED}.")
    tolerance = swept.get(TOLERANCE)
    if tolerance is not None and not 0 <= tolerance < 1:
        raise UsageError(f"{given or point}: expected numbers from 0 to below 1, found {tolerance:g}.")
    for name, value in point.values:
        if name != TOLERANCE and not rules.extrapolate and not 0 <= value <= 1:
            raise UsageError(
                f"{given or point}: expected alphas from 0 (zero-shot) to 1 (fine-tuned), found {value:g}."
            )
    alpha = swept.get(ALPHA, rules.alpha)
    depth = rules.depth
    if FIRST in swept or LAST in swept:
        first, last = rules.depth or (alpha, alpha)
        depth = (swept.get(FIRST, first), swept.get(LAST, last))
    patterns = tuple((pattern, value) for name, value in point.values if (pattern := pattern_of(name)))
    return replace(
        rules,
        alpha=alpha,
        depth=depth,
        alpha_for=(*patterns, *rules.alpha_for),
        frozen_tolerance=swept.get(TOLERANCE, rules.frozen_tolerance),
    )


def fixed_alpha(rules: Rules, point: Point) -> str:
    """The alpha that a sweep of other parameters leaves as it is, as an option of ``wise merge``; empty if it has none.

    It is that of tensors which nothing else decides, and of the end of the depth that is not given.
    """
    at = with_point(rules, point)
    decided = at.depth is not None and (rules.depth is not None or {FIRST, LAST} <= set(point.names))
    return "" if ALPHA in point.names or decided else f"--alpha {rules.alpha}"


def notes_on_axes(axes: Sequence[Axis], rules: Rules) -> Iterator[str]:
    """What is not swept and has an effect on every mixture."""
    names = [axis.name for axis in axes]
    for swept, other, end in ((FIRST, LAST, 1), (LAST, FIRST, 0)):
        if swept not in names or other in names:
            continue
        if rules.depth is not None:
            yield f"{other} is not swept: it is {rules.depth[end]:g} in all mixtures, from --depth-alpha"
        elif ALPHA in names:
            yield f"{other} is not swept: it is the alpha of the mixture; --depth-alpha FIRST:LAST fixes it"
        else:
            yield (
                f"{other} is not swept: it is {rules.alpha:g} in all mixtures, the same as --alpha; --depth-alpha "
                "FIRST:LAST gives it another value"
            )
    if ALPHA not in names and (TOLERANCE in names or any(map(pattern_of, names))) and rules.depth is None:
        yield f"alpha is {rules.alpha:g} for the tensors that the swept parameters do not decide; --alpha X changes it"


def require_effect(axes: Sequence[Axis], rules: Rules, names: Collection[str], source: object) -> None:
    """Raise UsageError if a swept alpha decides about none of the tensors with these names, which are in `source`."""
    for axis in axes:
        pattern = pattern_of(axis.name)
        if pattern and not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"{axis}: no tensor name matches {pattern!r}. List the names with: wise inspect {source}")
        if axis.name == TOLERANCE or len(axis.values) < 2:
            continue
        one, other = (
            with_point(
                rules,
                Point(tuple((each.name, each.values[end if each is axis else 0]) for each in axes)),
            )
            for end in (0, -1)
        )
        mixed = [name for name in names if one.wants(name) and one.kept(name) is None]
        if one.alphas(mixed) == other.alphas(mixed):
            raise UsageError(
                f"{axis}: changes no tensor, because other rules decide about all of them, or, for a depth, the "
                f"model has no blocks. {'Take one alpha (--alphas 0.5)' if axis.name == ALPHA else 'Leave it out'}, or "
                "remove the rule that comes before it."
            )

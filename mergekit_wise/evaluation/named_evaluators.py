"""Evaluators that have a name: those that are built in, and those of installed packages."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mergekit_wise.errors import SuiteError, UsageError, WiseError
from mergekit_wise.evaluation.own_evaluator import TaskEvaluator
from mergekit_wise.evaluation.retrieval import NAME, USES, open_retrieval
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.wording import did_you_mean, listed, shown

GROUP = "mergekit_wise.evaluators"
"""The group of entry points. Each is a function of one text, the argument after the colon, that returns an evaluator:
a function of a model's weights, or a `TaskEvaluator`."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An evaluator of this package.

    Attributes:
        make: of its argument and the options of the evaluation.
        uses: the names of the options that it reads, which may then be given.
    """

    make: Callable[[str, EvaluationOptions], TaskEvaluator]
    uses: frozenset[str]


BUILT_IN: Mapping[str, BuiltIn] = {NAME: BuiltIn(open_retrieval, USES)}
"""The evaluators of this package, by name."""


def named_evaluator(text: str, options: EvaluationOptions) -> tuple[Any, str]:
    """The evaluator of ``NAME`` or ``NAME:ARGUMENT``, and what it depends on besides the argument, as a text.

    That is the version of the package that provides it. Raises UsageError if there is none of this name, or if it
    cannot be made.
    """
    name, _, argument = text.partition(":")
    if name in BUILT_IN:
        return BUILT_IN[name].make(argument, options), ""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = (*BUILT_IN, *dict.fromkeys(point.name for point in entry_points(group=GROUP)))
        there = f"there {'is' if len(known) == 1 else 'are'} {listed(known)}"
        raise UsageError(
            f"--evaluator {shown(text)}: no evaluator has this name; {there}.{did_you_mean(name, known)} Packages "
            f"provide them as entry points of the group {GROUP}; for a script of your own take --command."
        )
    if len({point.value for point in found}) > 1:
        raise UsageError(
            f"--evaluator {shown(name)}: {listed(map(_origin, found))} all provide it. Uninstall all but one."
        )
    point = found[0]
    try:
        with redirect_stdout(sys.stderr):
            make = point.load()
    except (Exception, SystemExit) as error:  # whatever the code of another package raises
        reason = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise UsageError(f"--evaluator {shown(name)}: {_origin(point)} cannot be loaded: {reason}.") from error
    if not callable(make):
        raise UsageError(f"--evaluator {shown(name)}: {_origin(point)} is no function that returns an evaluator.")
    with foreign_code(f"--evaluator {shown(name)}: {_origin(point)}"):
        evaluator = make(argument)
    if not callable(evaluator):
        raise UsageError(
            f"--evaluator {shown(name)}: {_origin(point)} returned {type(evaluator).__name__}, which is no function. "
            "Expected a function of a model's weights, or a TaskEvaluator."
        )
    return evaluator, f"{text} {_origin(point)}"


@contextmanager
def foreign_code(origin: str) -> Iterator[None]:
    """Runs code of another package: what it prints goes to stderr, and what it raises is a SuiteError with `origin`."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except WiseError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of another package raises
        text = shown(str(error), 200)
        raise SuiteError(
            f"{origin} fails with {type(error).__name__}{f': {text}' if text else ''}. The fault is in that package or "
            "in what it was given."
        ) from error


def _origin(point: EntryPoint) -> str:
    """Where an entry point is, and in which version of which package."""
    package = f" ({point.dist.name} {point.dist.version})" if point.dist is not None else ""
    return f"{point.value}{package}"

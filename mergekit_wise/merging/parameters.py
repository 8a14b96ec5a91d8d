"""The parameters of the rules that a sweep can vary. Knows names and numbers."""

from dataclasses import replace

from mergekit_wise.analysis.point import ALPHA, Point
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.rules import Rules


def with_point(rules: Rules, point: Point) -> Rules:
    """The rules with the values of a point. Raises UsageError if there is no such parameter."""
    for name, value in point.values:
        if name != ALPHA:
            raise UsageError(f"{name} is no parameter of a rule.")
        rules = replace(rules, alpha=value)
    return rules

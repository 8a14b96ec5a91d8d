"""A sweep with an alpha for each image: its table for the terminal, and its level in a column of a report."""

from mergekit_wise.analysis import Estimate
from mergekit_wise.analysis.candidate import BOTH, SHIFTS
from mergekit_wise.analysis.dynamic_gain import DynamicGain
from mergekit_wise.report.comparison import Column, Curve
from mergekit_wise.report.table import Table, percent
from mergekit_wise.report.terminal_tables import AVERAGES

HEADS = ("", "Per image", "Best alpha", "Gain over it", "Gain over 0.5")


def per_image_title(gain: DynamicGain) -> str:
    """What the table shows."""
    how = "every image its own" if gain.clusters is None else f"{gain.clusters} for each data set"
    return f"An alpha for each image, {how} (%; gains in points, paired 95 % interval, * significant)"


def per_image_table(gain: DynamicGain) -> Table:
    """A row for each data set and average; the averages are marked."""
    rows = [
        (
            AVERAGES.get(each.column, each.column),
            percent(each.value, ""),
            f"{each.best:g}",
            _gain(each.over_best),
            "" if each.over_default is None else _gain(each.over_default),
        )
        for each in gain.columns
    ]
    return Table.of_texts(HEADS, rows, [each.column in (SHIFTS, BOTH) for each in gain.columns])


def per_image_level(curve: Curve, column: Column) -> float | None:
    """The result of the mixtures that images share, in [0, 1]; None if it is not known for all parts of the column."""
    found = [(curve.findings.get(name), weight) for name, weight in column.parts.items()]
    shared = [
        (weight, [value for clusters, value in finding.per_image.items() if clusters is not None])
        for finding, weight in found
        if finding is not None
    ]
    if len(shared) < len(found) or not all(values for _, values in shared):
        return None
    return sum(weight * values[-1] for weight, values in shared)


def _gain(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    star = "*" if low > 0 or high < 0 else ""
    return f"{100 * estimate.value:+.2f} ({low:+.2f} to {high:+.2f}){star}"

"""The table of a sweep with an alpha for each image, for the terminal."""

from mergekit_wise.analysis import Estimate
from mergekit_wise.analysis.candidate import BOTH, SHIFTS
from mergekit_wise.analysis.dynamic_gain import DynamicGain
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


def _gain(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    star = "*" if low > 0 or high < 0 else ""
    return f"{100 * estimate.value:+.2f} ({low:+.2f} to {high:+.2f}){star}"

"""What ``wise sweep --unlabelled`` prints besides the sweep."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.estimation import WithoutLabels


def show_estimates(found: "WithoutLabels") -> None:
    """Print the estimates on each set of images, the back-test, and what to read from them."""
    from mergekit_wise.cli.console import out, show
    from mergekit_wise.report.estimate_tables import (
        estimate_table,
        estimate_title,
        sentences,
        shift_table,
        trial_table,
        trial_title,
    )

    for each in found.sets:
        show(estimate_table(each, found.points, found.certainty.point), estimate_title(each))
    if found.trials:
        show(shift_table(found.shifts, found.trials), trial_title(found.shifts))
        show(trial_table(found.trials), "What choosing without labels loses there (points)")
    out.print()
    for sentence in sentences(found.certainty, found.sets, found.trials):
        out.print(sentence)

"""What the page shows of a sweep's choice: the numbers by the names of its columns, and what a reader must know of it.

Draws what was written and chooses nothing.
"""

import math
from collections.abc import Iterable, Mapping

from mergekit_wise.analysis import Difference, Loss, Recommendation
from mergekit_wise.analysis.candidate import BOTH as BOTH_CHOSEN
from mergekit_wise.analysis.candidate import SHIFTS as SHIFTS_CHOSEN
from mergekit_wise.analysis.point import DEFAULT
from mergekit_wise.report.comparison import BOTH, SHIFTS, Comparison, Curve
from mergekit_wise.report.table import EMPTY, Cell, Row, Table, listed, percent, points, points_interval
from mergekit_wise.results import WrittenChoice
from mergekit_wise.wording import plural

UNWRITTEN = (
    "The results file holds no choice of a sweep for these results, so alpha was chosen here, from the results and "
    "their intervals alone. Run the same wise sweep again to compare mixtures image by image: results are reused."
)
CHANGED = "Results were measured again after alpha was chosen; run wise sweep again to choose from these."
STAR = "*: significant (McNemar's exact test on one data set, the paired interval elsewhere)."
PAIRED_STAR = "*: significant (the paired 95 % interval of the loss, which allows for having picked the best alpha)."
UNPAIRED_STAR = "*: significant (the 95 % intervals do not overlap)."

HOW = {
    "halves": "chosen on one half of the images and measured on the other",
    "leave-one-out": "chosen on all shifts but one and measured on that one",
}
"""What cross-fitting did, by its name in a choice."""


def losses_of(comparison: Comparison, choice: WrittenChoice) -> dict[str, Loss]:
    """The losses of the default, by the names of the comparison's columns."""
    names = _columns(comparison, choice)
    return {names[loss.column]: loss for loss in choice.choice.losses if loss.column in names}


def differences_of(comparison: Comparison, choice: WrittenChoice) -> dict[str, dict[float, Difference]]:
    """The differences from the default, by the names of the comparison's columns and by alpha, ascending."""
    names = _columns(comparison, choice)
    found: dict[str, dict[float, Difference]] = {}
    for each in sorted(choice.choice.differences, key=lambda each: each.point):
        if each.column in names and each.point.alpha is not None:
            found.setdefault(names[each.column], {})[round(each.point.alpha, 9)] = each
    return found


def remarks(comparison: Comparison, curve: Curve, chosen: Recommendation) -> tuple[str, ...]:
    """Sentences on a recommendation: its warning, what it was chosen from if that is not all, and cross-fitting."""
    written = curve.choice
    found = [chosen.warning]
    if written is None:
        return tuple(filter(None, (*found, UNWRITTEN)))
    fitted = written.choice.cross_fit
    if fitted is not None:
        points_chosen = listed(dict.fromkeys(str(point) for point in sorted(fitted.points)))
        numbers = (
            f"{percent(fitted.naive)} % on the images that chose it; {percent(fitted.corrected)} % corrected for that"
        )
        found.append(f"{fitted.sentence or numbers}: {HOW.get(fitted.how, fitted.how)} (chosen: {points_chosen}).")
    if len(written.mixtures) < len(curve.mixtures):
        found.append(
            f"Chosen among {len(written.mixtures)} of the {len(curve.mixtures)} alphas shown. Run wise sweep with "
            "all of them to choose again: results are reused."
        )
    measured = {row.dataset for row in curve.rows.values() if row.role in ("reference", "shift")}
    if len(written.sets) < len(measured):
        found.append(f"Chosen on {len(written.sets)} of the {plural(len(measured), 'data set')} shown.")
    if _has_changed(comparison, curve, written):
        found.append(CHANGED)
    return tuple(filter(None, found))


def difference_table(comparison: Comparison, index: int) -> Table | None:
    """A row per mixture and a column per data set and average: the difference from alpha 0.5, paired; None without."""
    curve = comparison.curves[index]
    found = {} if curve.choice is None else differences_of(comparison, curve.choice)
    columns = [column for column in comparison.columns if column.name in found]
    alphas = sorted({alpha for by_alpha in found.values() for alpha in by_alpha if alpha != DEFAULT})
    if not alphas:
        return None
    rows = tuple(
        Row(
            (Cell(f"{alpha:g}", number=alpha), *(_cell(found[column.name].get(alpha)) for column in columns)),
            index,
            alpha,
        )
        for alpha in alphas
    )
    several = len(comparison.curves) > 1
    return Table(
        ("α", *(column.title for column in columns)),
        rows,
        title=f"Difference from α = {DEFAULT}" + (f": {curve.name}" if several else f" on {comparison.suite}"),
        caption="Percentage points with paired 95 % intervals, each for this one comparison. " + STAR,
    )


def difference_tables(comparison: Comparison) -> list[Table]:
    """The tables of all curves that have one."""
    found = (difference_table(comparison, index) for index in range(len(comparison.curves)))
    return [table for table in found if table is not None]


def star(choices: Iterable[WrittenChoice | None]) -> str:
    """What a star in the rows of losses means, if they come from these choices."""
    paired = {choice is not None and choice.choice.paired for choice in choices}
    if len(paired) > 1:
        return f"{PAIRED_STAR} Without a paired choice of a sweep: the 95 % intervals do not overlap."
    return PAIRED_STAR if paired == {True} else UNPAIRED_STAR


def _cell(found: Difference | None) -> Cell:
    if found is None:
        return EMPTY
    text = points(found.difference.value) + ("*" if found.significant else "")
    return Cell(text, points_interval(found.difference), found.difference.value)


def _columns(comparison: Comparison, choice: WrittenChoice) -> Mapping[str, str]:
    """The names of the comparison's columns by those of the choice's; averages only if they are of the same shifts."""
    names = {each.column: each.dataset for each in choice.sets}
    if {each.dataset for each in choice.sets if each.role == "shift"} == set(comparison.averaged):
        names |= {SHIFTS_CHOSEN: SHIFTS, BOTH_CHOSEN: BOTH}
    return names


def _has_changed(comparison: Comparison, curve: Curve, choice: WrittenChoice) -> bool:
    """Whether a result is not the one that the choice's losses were computed from."""
    columns = {column.name: column for column in comparison.columns}
    for name, loss in losses_of(comparison, choice).items():
        if name in columns and loss.point.alpha is not None:
            result = curve.result(round(loss.point.alpha, 9), columns[name])
            if result is not None and not math.isclose(result.value, loss.best.value, abs_tol=1e-9):
                return True
    return False

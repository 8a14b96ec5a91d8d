"""The command ``wise compare``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.compare import CompareReport
    from mergekit_wise.options import CompareOptions


def compare(options: "CompareOptions", json: bool) -> None:
    """Show which of two evaluated models is better where, image by image, or which mixtures of a sweep differ."""
    from mergekit_wise.api.compare import compare
    from mergekit_wise.cli.console import notes, out, show, show_json
    from mergekit_wise.option_types import run
    from mergekit_wise.report.contrast_tables import contrast_table, matrix_table

    report = run(compare, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict()["comparisons"])
        return
    if report.one_sweep:
        show(matrix_table(report.comparisons), report.title)
    else:
        for found in report.comparisons:
            out.print(f"A: {found.first}")
            out.print(f"B: {found.second}")
            show(contrast_table(found.columns), "B minus A in points (results in %)")
    out.print(_count(report))


def _count(report: "CompareReport") -> str:
    """How many comparisons on single data sets are significant, and by what."""
    found = report.on_data_sets
    by = "McNemar's exact test, or the 95 % interval where there is none"
    separated = sum(each.significant for each in found)
    verb = "is" if separated == 1 else "are"
    return f"{separated} of {plural(len(found), 'comparison')} on single data sets {verb} significant ({by})."

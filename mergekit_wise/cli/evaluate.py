"""The command ``wise eval``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergekit_wise.api.evaluate import EvalReport
    from mergekit_wise.api.sweep_report import SweepReport
    from mergekit_wise.evaluation.measure import Measured
    from mergekit_wise.options import EvalOptions, EvaluationOptions
    from mergekit_wise.report.table import Table
    from mergekit_wise.results import Record


def evaluate(options: "EvalOptions", json: bool) -> None:
    """Measure the accuracy of a checkpoint on a reference data set and on shifts away from it."""
    from mergekit_wise.api.evaluate import evaluate
    from mergekit_wise.cli.console import notes, say, show, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.errors import Unsaved
    from mergekit_wise.report.calibration_tables import calibration_table
    from mergekit_wise.report.terminal_tables import accuracy_table

    def show_all(measured: "EvalReport") -> None:
        notes(measured.notes)
        first = measured.records[0]
        if first.evaluator:
            say(f"Evaluated by {first.evaluator}.")
        else:
            say(f"{first.architecture}; head: {first.head}; {first.precision} on {first.device}.")
        if json:
            show_json(measured.to_dict()["records"])
        else:
            title = f"{options.checkpoint} on {first.suite} (%)"
            show(accuracy_table(measured.records, len(measured.missing)), title)
            units = "ECE, AUROC, accuracy at 80 % coverage in %; NLL in nats"
            show_calibration(measured.records, calibration_table(measured.records), f"Calibration ({units})")

    try:
        measured = perform(evaluate, options)
    except Unsaved as error:
        show_all(error.found)
        raise
    show_all(measured)
    say_rest(measured, options)


def show_calibration(records: "Sequence[Record]", table: "Table", title: str) -> None:
    """Print a table of calibration, and what it lacks; nothing if no record has any."""
    from mergekit_wise.cli.console import out, show
    from mergekit_wise.report.calibration_tables import undefined

    if any(record.calibration for record in records):
        show(table, title)
        if text := undefined(records):
            out.print(text)


def say_rest(report: "Measured | SweepReport", options: "EvaluationOptions") -> None:
    """Print which data sets were missing and how to get them, and what was written."""
    from mergekit_wise.cli.console import say, say_lines

    sets = {record.dataset for record in report.records}
    if report.missing:
        say(f"Not found: {len(report.missing)} of {len(sets) + len(report.missing)} data sets.")
    say_lines([f"  {part.title}: {part.hint}" for part in report.missing])
    reused = len(report.records) - report.added
    say(
        (f"{plural(reused, 'result')} reused from {options.results} (--redo to re-run). " if reused else "")
        + (f"{plural(report.added, 'result')} added to {options.results}." if report.added or not reused else "")
    )
    for file in filter(None, (options.per_class, options.per_sample)):
        say(f"Wrote {file}.")

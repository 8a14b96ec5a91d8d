"""The command ``wise sweep``."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.sweep_report import SweepReport
    from mergekit_wise.errors import Unsaved
    from mergekit_wise.evaluation.measure import Measured
    from mergekit_wise.options import SweepOptions


def sweep(options: "SweepOptions", json: bool) -> None:
    """Evaluate every alpha in one pass over the images and recommend one."""
    from mergekit_wise.cli.console import notes, say, show_json
    from mergekit_wise.cli.evaluate import say_rest
    from mergekit_wise.cli.progress import perform

    names = ("suite", "reference", "unlabelled", "command", "evaluator")
    if options.save is not None and not any(getattr(options, name) for name in names):
        _save(options)
        return
    from mergekit_wise.api.sweep import sweep
    from mergekit_wise.api.sweep_report import SweepReport
    from mergekit_wise.cli.estimates import show_estimates
    from mergekit_wise.errors import Unsaved

    def show_all(report: SweepReport) -> None:
        notes(report.notes)
        if json:
            show_json(report.to_dict())
        else:
            show_sweep(report, report.records[0].suite)
            again = " again" if options.output in report.saved else ""
            show_command(report, f"To write this mixture{again}:")
            _show_more(report)
            if report.without_labels is not None:
                show_estimates(report.without_labels)
        for path in report.saved:
            say(f"Wrote {path}.")

    try:
        report = perform(sweep, options)
    except Unsaved as error:
        if isinstance(error.found, SweepReport):
            show_all(error.found)
        else:
            _show_measured(error.found, error.found.records[0].suite, json=json)
        raise
    show_all(report)
    say_rest(report, options)
    if options.plot is not None:
        say(f"Wrote {options.plot}.")


def show_unsaved(error: "Unsaved", suite: str) -> None:
    """Print what a sweep found although a file could not be written."""
    from mergekit_wise.api.sweep_report import SweepReport

    if isinstance(error.found, SweepReport):
        show_sweep(error.found, suite)
        show_command(error.found)
    else:
        _show_measured(error.found, suite, json=False)


def _show_measured(measured: "Measured", suite: str, *, json: bool) -> None:
    """Print what a sweep measured before it failed."""
    from mergekit_wise.cli.console import notes, show, show_json
    from mergekit_wise.report.terminal_tables import measured_table
    from mergekit_wise.results import as_entry

    notes(measured.notes)
    if json:
        show_json({"records": [as_entry(record) for record in measured.records]})
    else:
        show(measured_table(measured.records), f"Measured on {suite} before the error (%)")


def _save(options: "SweepOptions") -> None:
    """Write every mixture and evaluate none, which needs no torch."""
    from mergekit_wise.api.merge import merge_points, mixtures_of
    from mergekit_wise.cli.console import notes, say
    from mergekit_wise.cli.progress import bars

    with bars() as progress:
        reports = merge_points(*mixtures_of(replace(options, progress=progress)))
    notes(tuple(dict.fromkeys(note for report in reports for note in report.notes)))
    for report in reports:
        say(f"Wrote {report.output}.")


def show_sweep(report: "SweepReport", suite: str) -> None:
    """Print the table of a sweep, the loss at alpha 0.5, its calibration, and the recommended alpha."""
    from mergekit_wise.cli.calibrate import show_calibration as show_fit
    from mergekit_wise.cli.console import out, show
    from mergekit_wise.cli.evaluate import show_calibration
    from mergekit_wise.report.calibration_tables import sweep_calibration
    from mergekit_wise.report.terminal_tables import loss_table, loss_title, sweep_table, sweep_title

    chosen = report.recommendation
    shown = [record for record in report.records if record.role != "companion"]
    show(sweep_table(report.candidates, shown, chosen.point), sweep_title(shown, suite))
    show(loss_table(report.losses), loss_title(report.losses))
    show_calibration(shown, sweep_calibration(shown), "Calibration (ECE in %, NLL in nats; shifts: their average)")
    what = str(chosen.point) if chosen.alpha is None else f"alpha: {chosen.alpha:g}"
    out.print(f"\nRecommended {what} - {chosen.reason}.")
    if report.choice.cross_fit is not None:
        out.print(f"{report.choice.cross_fit.sentence[:1].upper()}{report.choice.cross_fit.sentence[1:]}.")
    if chosen.warning:
        out.print(chosen.warning)
    if report.calibrated is not None:
        show_fit(report.calibrated)
        out.print(f"Logits are divided by T = {report.calibrated.fit.temperature:.4f}.")


def show_command(report: "SweepReport", title: str = "To write this mixture:") -> None:
    """Print the command that writes the recommended mixture."""
    from mergekit_wise.cli.console import out

    out.print(title)
    out.print(f"    {report.merge_command}", soft_wrap=True)


def _show_more(report: "SweepReport") -> None:
    from mergekit_wise.cli.console import show
    from mergekit_wise.report.per_image import per_image_table, per_image_title
    from mergekit_wise.report.terminal_tables import analysis_table, connectivity_table, ensemble_table
    from mergekit_wise.results import ENSEMBLE

    for gain in report.dynamic:
        show(per_image_table(gain), per_image_title(gain))
    names = {name for analysis in report.analyses for name in analysis.values}
    if any(name.startswith(ENSEMBLE) for name in names):
        show(ensemble_table(report.analyses, report.records), "Mixed weights / mixed outputs (%)")
    if any(not name.startswith(ENSEMBLE) for name in names):
        show(connectivity_table(report.records, report.answers), "Linear mode connectivity, in points (* significant)")
        show(analysis_table(report.analyses), "How the two models differ")

"""The command ``wise calibrate``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.calibrate import CalibrateReport
    from mergekit_wise.options import CalibrateOptions


def calibrate(options: "CalibrateOptions", json: bool) -> None:
    """Divide a model's head by the temperature that calibrates it on a data set; predictions stay the same."""
    from mergekit_wise.api.calibrate import calibrate
    from mergekit_wise.cli.console import notes, out, show_json
    from mergekit_wise.cli.progress import perform

    report = perform(calibrate, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    show_calibration(report)
    text = f"\nWrote {report.output}: logits divided by T = {report.fit.temperature:.4f}."
    out.print(text, soft_wrap=True)


def show_calibration(report: "CalibrateReport") -> None:
    """Print the calibration before and after."""
    from mergekit_wise.cli.console import show
    from mergekit_wise.report.calibration_tables import before_and_after

    show(before_and_after(report.fit.before, report.fit.after), report.title)

"""The command ``wise calibrate``."""

from typing import TYPE_CHECKING, Any

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
        show_json({"output": str(report.output), **calibration_entry(report)})
        return
    show_calibration(report)
    text = f"\nWrote {report.output}: logits divided by T = {report.fit.temperature:.4f}."
    out.print(text, soft_wrap=True)


def calibration_entry(report: "CalibrateReport") -> dict[str, Any]:
    """The temperature and what it changes, for JSON."""
    fit = report.fit
    both = {"before": dict(fit.before.values), "after": dict(fit.after.values)}
    counts = {"images": fit.images, "correct": list(fit.correct), "changed": fit.changed}
    return {"temperature": fit.temperature, **counts, **both}


def show_calibration(report: "CalibrateReport") -> None:
    """Print the calibration before and after."""
    from mergekit_wise.cli.console import show
    from mergekit_wise.report.calibration_tables import before_and_after
    from mergekit_wise.wording import plural

    fit = report.fit
    show(before_and_after(fit.before, fit.after), f"Calibration on {report.dataset} ({plural(fit.images, 'image')})")

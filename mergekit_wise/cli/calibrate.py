"""The command ``wise calibrate``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import CalibrateOptions


def calibrate(options: "CalibrateOptions", json: bool) -> None:
    """Divide a model's head by the temperature that calibrates it on a data set; predictions stay the same."""
    from mergekit_wise.api.calibrate import calibrate
    from mergekit_wise.cli.console import notes, out, show, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.report.calibration_tables import before_and_after
    from mergekit_wise.wording import plural

    report = perform(calibrate, options)
    fit = report.fit
    notes(report.notes)
    if json:
        both = {"before": dict(fit.before.values), "after": dict(fit.after.values)}
        counts = {"images": fit.images, "correct": list(fit.correct), "changed": fit.changed}
        show_json({"output": str(report.output), "temperature": fit.temperature, **counts, **both})
        return
    show(before_and_after(fit.before, fit.after), f"Calibration on {report.dataset} ({plural(fit.images, 'image')})")
    out.print(f"\nWrote {report.output}: logits divided by T = {fit.temperature:.4f}.", soft_wrap=True)

"""The command ``wise predict``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.predict_report import PredictReport
    from mergekit_wise.options import PredictOptions

SHOWN = 20
"""Images in the table."""


def predict(options: "PredictOptions", json: bool) -> None:
    """Predict the classes of images without labels, with a checkpoint or a mixture of two."""
    from json import dumps

    from mergekit_wise.api.predict import predict
    from mergekit_wise.cli.console import notes, out, say
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.errors import Unsaved
    from mergekit_wise.wording import plural

    def show_all(report: "PredictReport", *, saved: bool) -> None:
        notes(report.notes)
        say(f"{report.architecture}; head: {report.head}; {report.precision} on {report.device}.")
        if json:
            for entry in report.to_dict()["predictions"]:
                out.print(dumps(entry), soft_wrap=True)
        elif not saved:
            _show_table(report)
        if saved:
            say(f"Wrote the predictions of {plural(len(report.predictions), 'image')} to {report.output}.")

    try:
        report = perform(predict, options)
    except Unsaved as error:
        show_all(error.found, saved=False)
        raise
    show_all(report, saved=report.output is not None)


def _show_table(report: "PredictReport") -> None:
    from mergekit_wise.cli.console import say, show
    from mergekit_wise.report.terminal_tables import prediction_table

    show(prediction_table(report.predictions[:SHOWN], with_alpha=bool(report.mixtures)), "Predictions")
    if len(report.predictions) > SHOWN:
        say(f"The first {SHOWN} of {len(report.predictions):,} images. -o FILE writes all (.jsonl or .csv).")

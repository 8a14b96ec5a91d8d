"""The command ``wise predict``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.predict import PredictReport
    from mergekit_wise.options import PredictOptions

SHOWN = 20
"""Images in the table."""


def predict(options: "PredictOptions", json: bool) -> None:
    """Predict the classes of images without labels, with a checkpoint or a mixture of two."""
    from mergekit_wise.api.predict import predict
    from mergekit_wise.cli.console import notes, out, say
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.errors import Unsaved
    from mergekit_wise.results.predictions import as_json_lines
    from mergekit_wise.wording import plural

    def show_all(report: "PredictReport", *, saved: bool) -> None:
        notes(report.notes)
        say(f"{report.architecture}; head: {report.head}; {report.precision} on {report.device}.")
        if json:
            for line in as_json_lines(report.predictions):
                out.print(line, soft_wrap=True)
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
    from mergekit_wise.report.table import Table, percent

    rows = []
    for each in report.predictions[:SHOWN]:
        name = "no prediction" if each.error else (each.names or tuple(map(str, each.classes)))[0]
        share = percent(each.probabilities[0]) if each.probabilities else ""
        rows.append((each.file, name, share, *([f"{each.alpha:.3f}"] if report.mixtures else [])))
    heads = ("File", "Class", "Probability (%)", *(["Alpha"] if report.mixtures else []))
    show(Table.of_texts(heads, rows), "Predictions")
    if len(report.predictions) > SHOWN:
        say(f"The first {SHOWN} of {len(report.predictions):,} images. -o FILE writes all (.jsonl or .csv).")

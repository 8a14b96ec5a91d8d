"""The command ``wise sweep``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.recipes.sweep import SweepReport


def sweep(
    zeroshot: options.ZeroShot,
    finetuned: options.FineTuned,
    alphas: Annotated[
        str,
        typer.Option(
            "--alphas",
            metavar="LIST",
            help="start:stop:step with its end, numbers with commas between, or both.",
        ),
    ] = "0:1:0.1",
    suite: options.SuiteName = "digits",
    model: options.Model = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = 128,
    results: options.Results = Path("results.jsonl"),
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw reference against shifts, as PNG."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate every alpha in one pass over the images, and say which to choose."""
    from mergekit_wise.cli.console import notes, say
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.merging import parse_alphas
    from mergekit_wise.recipes.sweep import sweep
    from mergekit_wise.report.scatter import draw_scatter

    with bars() as progress:
        report = sweep(
            zeroshot,
            finetuned,
            alphas=parse_alphas(alphas),
            suite=suite,
            model=model,
            device=device,
            batch_size=batch_size,
            results=results,
            progress=progress,
        )
    notes(report.notes)
    _print(report, suite, as_json)
    say(f"Appended {len(report.records)} records to {results}.")
    if plot is not None:
        draw_scatter(report.candidates, report.recommendation.alpha, plot)
        say(f"Drew {plot}.")


def _print(report: "SweepReport", suite: str, as_json: bool) -> None:
    from mergekit_wise.cli.console import show_json
    from mergekit_wise.results import as_entry

    if as_json:
        chosen = {"alpha": report.recommendation.alpha, "reason": report.recommendation.reason}
        records = [as_entry(record) for record in report.records]
        show_json({"recommended": chosen, "records": records})
        return
    show_sweep(report, suite)


def show_sweep(report: "SweepReport", suite: str) -> None:
    """The table of a sweep and the recommended alpha, on stdout."""
    from mergekit_wise.cli.console import out, show
    from mergekit_wise.report.table import sweep_table

    table = sweep_table(report.candidates, report.records, report.recommendation.alpha)
    show(table, f"Accuracy on {suite} (%)")
    chosen = report.recommendation
    out.print(f"\nRecommended alpha: {chosen.alpha:g} - {chosen.reason}.", markup=False)
    out.print("It was chosen on the images that it is judged on; confirm it on others.", markup=False)

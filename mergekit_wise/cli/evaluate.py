"""The command ``wise eval``."""

from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.api.sweep import SweepReport
    from mergekit_wise.evaluation.measure import Measured


def evaluate(
    checkpoint: options.File,
    suite: options.SuiteName = "digits",
    data: options.Data = None,
    strict: options.Strict = False,
    classnames: options.ClassNames = None,
    templates: options.Templates = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    head: options.Head = None,
    device: options.Device = "cpu",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 128,
    workers: options.Workers = None,
    max_bad: options.MaxBad = 0,
    results: options.Results = Path("results.jsonl"),
    redo: options.Redo = False,
    per_class: options.PerClass = None,
    per_sample: options.PerSample = None,
    as_json: options.AsJson = False,
) -> None:
    """Accuracy of a checkpoint on a reference data set and on shifts away from it."""
    from mergekit_wise.api.evaluate import evaluate
    from mergekit_wise.cli.console import notes, say, show, show_json
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.report.terminal_tables import accuracy_table
    from mergekit_wise.results import as_entry

    with bars() as progress:
        measured = evaluate(
            checkpoint,
            suite,
            data=data,
            strict=strict,
            classnames=classnames,
            templates=templates,
            limit=limit,
            seed=seed,
            model=model,
            head=head,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            max_bad=max_bad,
            results=results,
            redo=redo,
            per_class=per_class,
            per_sample=per_sample,
            progress=progress,
        )
    notes(measured.notes)
    first = measured.records[0]
    say(f"{first.architecture}; head: {first.head}; {first.precision} on {first.device}.")
    if as_json:
        show_json([as_entry(record) for record in measured.records])
    else:
        show(accuracy_table(measured.records, len(measured.missing)), f"{checkpoint} on {suite} (%)")
    say_rest(measured, results, (per_class, per_sample))


def say_rest(report: "Measured | SweepReport", results: Path, files: tuple[Path | None, ...]) -> None:
    """Which data sets were not there and what to do, and what was written."""
    from mergekit_wise.cli.console import say

    sets = {record.dataset for record in report.records}
    if report.missing:
        say(f"Not found: {len(report.missing)} of {len(sets) + len(report.missing)} data sets.")
    for part in report.missing:
        say(f"  {part.title}: {part.hint}")
    held = len(report.records) - report.added
    say(
        f"Appended {report.added} records to {results}."
        + (f" {held} stood there already; --redo measures them again." if held else "")
    )
    for file in filter(None, files):
        say(f"Wrote {file}.")

"""The command ``wise eval``."""

from pathlib import Path

from mergekit_wise.cli import options


def evaluate(
    checkpoint: options.File,
    suite: options.SuiteName = "digits",
    model: options.Model = None,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = 128,
    results: options.Results = Path("results.jsonl"),
    as_json: options.AsJson = False,
) -> None:
    """Accuracy of a checkpoint on a reference data set and on shifts away from it."""
    from mergekit_wise.cli.console import say, show, show_json
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.recipes.evaluate import evaluate
    from mergekit_wise.report.table import accuracy_table
    from mergekit_wise.results import as_entry

    with bars() as progress:
        records = evaluate(
            checkpoint,
            suite,
            model=model,
            device=device,
            batch_size=batch_size,
            results=results,
            progress=progress,
        )
    if as_json:
        show_json([as_entry(record) for record in records])
    else:
        show(accuracy_table(records), f"{checkpoint} on {suite} (%)")
    say(f"Appended {len(records)} records to {results}.")

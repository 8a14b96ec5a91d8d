"""The command ``wise recipe``."""

from pathlib import Path
from typing import Annotated

import typer


def recipe(
    path: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="TOML with a table for each of zeroshot, finetune, sweep, report.")
    ] = Path("wise.toml"),
) -> None:
    """Zero-shot head, fine-tuning, sweep and report from one file; what did not change is not done again."""
    from mergekit_wise.api.recipe import recipe
    from mergekit_wise.cli.console import out, say
    from mergekit_wise.cli.finetune import stopping
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.cli.sweep import show_sweep

    with stopping(), bars() as progress:
        report = recipe(path, progress=progress, note=say)
    show_sweep(report.sweep, report.sweep.records[0].suite)
    out.print("")
    for file in filter(None, (report.zeroshot, report.finetuned, report.results, report.page)):
        out.print(str(file))

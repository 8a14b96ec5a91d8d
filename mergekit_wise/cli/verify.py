"""The command ``wise verify``."""

import typer

from mergekit_wise.options import VerifyOptions


def verify(options: VerifyOptions) -> None:
    """Recompute a merged file from its recorded provenance and compare it byte for byte."""
    from mergekit_wise.api.verify import verify
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.cli.progress import perform

    verdict = perform(verify, options)
    notes(verdict.notes)
    if verdict.difference is not None:
        out.print(f"{options.merged} is not what its sources give: {verdict.difference}.")
        raise typer.Exit(1)
    out.print(f"{options.merged}: all {verdict.tensors} tensors are what its sources give, byte for byte.")

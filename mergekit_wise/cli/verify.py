"""The command ``wise verify``."""

from typing import Annotated

import typer

from mergekit_wise.cli import options


def verify(
    merged: options.File,
    zeroshot: Annotated[str, typer.Option("--zeroshot", metavar="ZS", help="The zero-shot checkpoint.")],
    finetuned: Annotated[str, typer.Option("--finetuned", metavar="FT", help="The fine-tuned checkpoint.")],
    fisher: Annotated[
        tuple[str, str] | None, typer.Option(metavar="ZS_FISHER FT_FISHER", help="As they were given to merge.")
    ] = None,
) -> None:
    """Compute a merged file again from what it says of itself, and compare every byte."""
    from mergekit_wise.api.verify import verify
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.cli.progress import bars

    with bars() as progress:
        verdict = verify(merged, zeroshot=zeroshot, finetuned=finetuned, fisher=fisher, progress=progress)
    notes(verdict.notes)
    if verdict.difference is not None:
        out.print(f"{merged} is not what its sources give: {verdict.difference}.")
        raise typer.Exit(1)
    out.print(f"{merged}: all {verdict.tensors} tensors are what its sources give, byte for byte.")

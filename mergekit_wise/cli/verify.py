"""The command ``wise verify``."""

from typing import TYPE_CHECKING

import typer

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.verify import Verdict
    from mergekit_wise.options import VerifyOptions


def verify(options: "VerifyOptions") -> None:
    """Recompute a merged file from its recorded provenance and compare it byte for byte."""
    from mergekit_wise.api.verify import verify
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.cli.progress import perform

    verdict = perform(verify, options)
    notes(verdict.notes)
    if verdict.difference is not None:
        out.print(f"{options.merged} is not what its sources give: {verdict.difference}.")
        raise typer.Exit(1)
    out.print(f"{options.merged}: {_summary(verdict)}.")


def _summary(verdict: "Verdict") -> str:
    computed = verdict.mixed + verdict.copied
    of = (
        f"all {plural(computed, 'tensor')}"
        if computed == verdict.tensors
        else f"{computed} of {verdict.tensors} tensors"
    )
    parts = [f"{of} are what its sources give, byte for byte ({verdict.mixed:,} mixed, {verdict.copied:,} copied)"]
    if verdict.recorded:
        parts.append(f"{verdict.recorded} recomputed after merging, and as they were written")
    if verdict.skipped:
        parts.append(f"{verdict.skipped} not compared")
    return "; ".join(parts)

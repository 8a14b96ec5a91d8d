"""The command ``wise merge``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.recipes.merge import MergeReport


def merge(
    zeroshot: options.ZeroShot,
    finetuned: options.FineTuned,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The safetensors file to write.")],
    alpha: Annotated[
        float,
        typer.Option("--alpha", metavar="ALPHA", help="0 is zero-shot, 1 fine-tuned."),
    ] = 0.5,
    device: options.Device = "cpu",
) -> None:
    """Mix the weights of two checkpoints: (1 - alpha) * zeroshot + alpha * finetuned."""
    from mergekit_wise.cli.console import notes
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.recipes.merge import merge

    with bars() as progress:
        report = merge(zeroshot, finetuned, output, alpha=alpha, device=device, progress=progress)
    notes(report.notes)
    _summarise(report)


def _summarise(report: "MergeReport") -> None:
    from mergekit_wise.cli.console import in_bytes, out

    fates = Counter(outcome.fate for outcome in report.outcomes)
    taken = [outcome.name for outcome in report.outcomes if outcome.fate == "finetuned"]
    lines = []
    if fates["mixed"]:
        lines.append(f"{fates['mixed']} tensors mixed at alpha {report.alpha:g}")
    if fates["equal"]:
        lines.append(f"{fates['equal']} copied: the same in both files")
    if fates["zeroshot"]:
        lines.append(f"{fates['zeroshot']} copied from the zero-shot file (alpha 0)")
    if taken and report.alpha == 1:
        lines.append(f"{fates['finetuned']} copied from the fine-tuned file (alpha 1)")
    elif taken:
        lines.append(f"{len(taken)} taken from the fine-tuned file, being integers that differ: {', '.join(taken)}")
    if report.distance is not None:
        lines.append(f"the weights moved by {report.distance:.3g} of their size in fine-tuning")
    rate = report.size / max(report.seconds, 1e-9)
    out.print(
        f"Wrote {report.output} ({in_bytes(report.size)}, {report.seconds:.1f} s, {in_bytes(int(rate))}/s)",
        markup=False,
        soft_wrap=True,
    )
    for line in lines:
        out.print(f"  {line}", markup=False)

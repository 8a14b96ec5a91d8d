"""The command ``wise merge``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.api.merge import MergeReport, Preview
    from mergekit_wise.options import MergeKeywords


def merge(
    zeroshot: options.ZeroShot,
    finetuned: options.FineTuned,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The safetensors file to write, or a folder (see docs)."),
    ],
    alpha: Annotated[float, typer.Option(metavar="ALPHA", help="0 is zero-shot, 1 fine-tuned.")] = 0.5,
    alpha_for: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=ALPHA", help="Alpha of the tensors that match; the first match wins."),
    ] = None,
    depth_alpha: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Alpha rises with depth, from the first block to the last (LiNeS)."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="SIDE:PATTERN", help="Take tensors that match from one side, zs or ft, as they are."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Write only the tensors that match.")
    ] = None,
    fisher: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ZS_FISHER FT_FISHER", help="Weigh elements by these files of Fisher information."),
    ] = None,
    fisher_floor: Annotated[
        float, typer.Option(min=0, metavar="X", help="Smaller Fisher values count as this.")
    ] = 1e-8,
    extrapolate: Annotated[bool, typer.Option("--extrapolate", help="Allow alpha outside [0, 1].")] = False,
    allow_non_finite: Annotated[
        bool, typer.Option("--allow-non-finite", help="Write the file even if mixing made infinities or NaN.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="Of the output: fp32, bf16, fp16 ... By default as the inputs.")
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Write several files of at most this size, and an index.")
    ] = None,
    recalibrate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Estimate batch-norm statistics again, on these images (see wise suites)."),
    ] = None,
    data: options.Data = None,
    model: options.Model = None,
    device: options.Device = "cpu",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Budget for blocks in flight.")] = "256MB",
    no_mmap: Annotated[
        bool, typer.Option("--no-mmap", help="Read plainly instead of mapping files: for network disks.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what each tensor would get; read headers only, write nothing.")
    ] = False,
) -> None:
    """Mix the weights of two checkpoints: (1 - alpha) * zeroshot + alpha * finetuned."""
    from mergekit_wise.api.merge import merge, preview
    from mergekit_wise.cli.console import notes
    from mergekit_wise.cli.progress import bars

    asked: MergeKeywords = {
        "alpha": alpha,
        "alpha_for": tuple(alpha_for or ()),
        "depth_alpha": depth_alpha,
        "keep": tuple(keep or ()),
        "only": tuple(only or ()),
        "fisher": fisher,
        "fisher_floor": fisher_floor,
        "extrapolate": extrapolate,
        "allow_non_finite": allow_non_finite,
        "dtype": dtype,
        "shard_size": shard_size,
        "device": device,
        "memory": memory,
        "mmap": not no_mmap,
        "recalibrate": recalibrate,
        "data": data,
        "model": model,
    }
    if dry_run:
        _show_plan(preview(zeroshot, finetuned, output, **asked))
        return
    with bars() as progress:
        report = merge(zeroshot, finetuned, output, progress=progress, **asked)
    notes(report.notes)
    _summarise(report)


def _show_plan(found: "Preview") -> None:
    from mergekit_wise.cli.console import in_bytes, notes, out, show
    from mergekit_wise.report.terminal_tables import plan_table

    notes(found.notes)
    show(plan_table(found.steps), "What each tensor would get")
    files = "1 file" if found.files == 1 else f"{found.files} files"
    out.print(f"\n{files}, {in_bytes(found.size)}; {in_bytes(found.free)} are free there. Nothing was written.")


def _summarise(report: "MergeReport") -> None:
    from mergekit_wise.cli.console import in_bytes, out

    rate = report.size / max(report.seconds, 1e-9)
    out.print(f"Wrote {report.output} ({in_bytes(report.size)}, {report.seconds:.1f} s, {in_bytes(int(rate))}/s)")
    for line in _lines(report):
        out.print(f"  {line}")


def _lines(report: "MergeReport") -> list[str]:
    counts = Counter((outcome.step.action, outcome.source) for outcome in report.outcomes)
    alphas = sorted({o.step.alpha for o in report.outcomes if o.source == "mixed"})
    mixed = counts["mix", "mixed"]
    equal = counts["mix", "equal"] + counts["choose", "equal"]
    chosen = [
        outcome.name for outcome in report.outcomes if outcome.step.action == "choose" and outcome.source != "equal"
    ]
    lines = []
    if mixed:
        spread = f"alpha {alphas[0]:g}" if len(alphas) == 1 else f"alphas from {alphas[0]:g} to {alphas[-1]:g}"
        lines.append(f"{mixed} tensors mixed at {spread}")
    if equal:
        lines.append(f"{equal} copied: the same in both files")
    for side, name in (("zeroshot", "zero-shot"), ("finetuned", "fine-tuned")):
        if taken := counts[side, side]:  # type: ignore[index]
            lines.append(f"{taken} taken from the {name} file as they are")
    if chosen:
        lines.append(f"{len(chosen)} taken from the fine-tuned file, being integers that differ: {', '.join(chosen)}")
    if report.distance is not None:
        lines.append(f"the weights moved by {report.distance:.3g} of their size in fine-tuning")
    return lines

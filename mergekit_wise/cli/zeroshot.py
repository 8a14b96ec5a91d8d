"""The command ``wise zeroshot``."""

from pathlib import Path
from typing import Annotated

import typer

from mergekit_wise.cli import options


def zeroshot(
    checkpoint: options.File,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The safetensors file to write.")],
    classes: Annotated[
        str, typer.Option("--classes", metavar="imagenet|FILE", help="Class names; a file has one a line.")
    ] = "imagenet",
    templates: Annotated[
        str | None,
        typer.Option(
            "--templates",
            metavar="openai|simple|FILE",
            help="Prompts with {} for a class name; a file has one a line. Else openai's 80 for imagenet, "
            "'a photo of a {}.' for other classes.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    device: options.Device = "cpu",
) -> None:
    """Write image tower and zero-shot head as one checkpoint: where fine-tuning starts."""
    from mergekit_wise.api.zeroshot import zeroshot
    from mergekit_wise.cli.console import in_bytes, notes, out
    from mergekit_wise.cli.progress import bars

    with bars() as progress:
        report = zeroshot(
            checkpoint, output, classes=classes, templates=templates, model=model, device=device, progress=progress
        )
    notes((*report.notes, f"architecture: {report.architecture}"))
    out.print(
        f"{report.output}: {len(report.classnames)} classes by {len(report.templates)} templates, "
        f"{in_bytes(report.output.stat().st_size)}",
        markup=False,
        soft_wrap=True,
    )

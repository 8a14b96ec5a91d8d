"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ZeroShot = Annotated[str, typer.Argument(metavar="ZEROSHOT", help="Checkpoint of the zero-shot model.")]
FineTuned = Annotated[str, typer.Argument(metavar="FINETUNED", help="Checkpoint of the same model, fine-tuned.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="A checkpoint.")]
SuiteName = Annotated[str, typer.Option("--suite", metavar="NAME", help="Data sets to evaluate on: digits.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ... for the arithmetic.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="open_clip architecture, where the checkpoint does not say it.",
        show_default=False,
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, metavar="N", help="Images at a time.")]
Results = Annotated[
    Path,
    typer.Option("--results", metavar="FILE", help="JSON Lines file that records are appended to."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]

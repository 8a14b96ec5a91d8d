"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ZeroShot = Annotated[str, typer.Argument(metavar="ZEROSHOT", help="Checkpoint of the zero-shot model.")]
FineTuned = Annotated[str, typer.Argument(metavar="FINETUNED", help="Checkpoint of the same model, fine-tuned.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="A checkpoint.")]
_Suite = typer.Option(
    "--suite",
    metavar="NAMES",
    help="Suites, data sets, folders or TOML files, with commas between: see wise suites.",
)
SuiteName = Annotated[str, _Suite]
SuiteOfSweep = Annotated[str | None, _Suite]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ... for the arithmetic.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Architecture, where the checkpoint does not say it: open_clip's NAME or NAME/TAG, or timm:NAME.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, metavar="N", help="Images at a time; halved when memory runs out."),
]
Results = Annotated[
    Path,
    typer.Option("--results", metavar="FILE", help="JSON Lines file; what stands there is not measured again."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="WISE_DATA",
        metavar="ROOT",
        help="Folder under which data sets are looked for.",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if a data set of the suite is missing.")]
ClassNames = Annotated[
    str | None,
    typer.Option("--classnames", metavar="FILE", help="Names of the classes, one a line, in place of the data set's."),
]
Templates = Annotated[
    str | None,
    typer.Option(
        "--templates",
        metavar="FILE",
        help="Prompts of a zero-shot head, one a line with {} for the name; or imagenet, simple, plain.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Take N images of each data set, balanced by class."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of what --limit takes.")]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="FILE",
        help="File of a head to use; or zero-shot, for one of class names. By default the checkpoint's own, if any.",
        show_default=False,
    ),
]
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", help="fp32, bf16, fp16; auto is fp32 on the CPU, else bf16 or fp16."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        metavar="N",
        help="Processes that decode images; 0: none but this. By default one a core, at most 8.",
        show_default=False,
    ),
]
MaxBad = Annotated[int, typer.Option("--max-bad", min=0, metavar="N", help="Unreadable images of a set to pass over.")]
Redo = Annotated[bool, typer.Option("--redo", help="Measure again what stands in the results file.")]
PerClass = Annotated[
    Path | None,
    typer.Option("--per-class", metavar="FILE", help="Write the accuracy of each class, as CSV; measures all again."),
]
PerSample = Annotated[
    Path | None,
    typer.Option(
        "--per-sample", metavar="FILE", help="Write the prediction of each image, as JSON Lines; measures all again."
    ),
]

"""The command ``wise finetune``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergekit_wise import launcher
from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.api.finetune import FinetuneReport

INTERRUPTED = 130
"""The exit code that shells give a program that Ctrl-C ended."""


def finetune(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Image tower and head: see wise zeroshot. Both towers, if contrastive."),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="What to learn from: a folder of class folders, a TOML file, a data set's name, or digits.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The safetensors file to write.")],
    linear: Annotated[
        bool, typer.Option("--linear", help="Learn the head alone, on features that are computed once.")
    ] = False,
    objective: Annotated[
        str,
        typer.Option(
            "--objective", metavar="NAME", help="cross-entropy; or contrastive: both towers, as in pre-training (FLYP)."
        ),
    ] = "cross-entropy",
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", help="How often each image comes.")] = 10,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images of a step.")] = 512,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch", metavar="N", help="Images computed at once; by default what fits.", show_default=False
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", metavar="X", help="Highest learning rate: 3e-5, with --linear 1e-3.", show_default=False),
    ] = None,
    weight_decay: Annotated[float, typer.Option("--weight-decay", metavar="X", help="Of AdamW.")] = 0.1,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            metavar="N",
            help="Steps until the rate is highest: 500, or a tenth of a run of no more than that.",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[float, typer.Option("--clip", metavar="X", help="Largest norm of the gradient.")] = 1.0,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", metavar="X", help="Share of a label spread over all classes.")
    ] = 0.0,
    freeze: Annotated[
        list[str] | None,
        typer.Option("--freeze", metavar="PATTERN", help="Tensors that stay as they are; may be repeated."),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option("--ema", metavar="DECAY", help="Write the exponential moving average of the weights."),
    ] = None,
    layer_decay: Annotated[
        float,
        typer.Option("--layer-decay", metavar="X", help="Learning rate of a layer, as a share of the next one's."),
    ] = 1.0,
    mixup: Annotated[
        float, typer.Option("--mixup", metavar="X", help="Mix pairs of images, Beta(X, X); 0: none.")
    ] = 0.0,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="NAME",
            help="none, crop (the default; with --linear none), crop-flip, or strong.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of all random numbers.")] = 0,
    model: options.Model = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            envvar="WISE_DATA",
            metavar="ROOT",
            help="Folder under which data sets are looked for by name.",
            show_default=False,
        ),
    ] = None,
    classnames: options.ClassNames = None,
    templates: Annotated[
        str | None,
        typer.Option("--templates", metavar="FILE", help="Captions of --objective contrastive, {} for the class name."),
    ] = None,
    precision: options.Precision = "auto",
    device: options.Device = "cpu",
    workers: options.Workers = None,
    max_bad: options.MaxBad = 0,
    validate: Annotated[
        str | None,
        typer.Option("--validate", metavar="NAMES", help="Suite to measure after each epoch, at alpha 0.5 too."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="JSON Lines of steps and epochs; beside the output by default."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="Where features are kept.", show_default="~/.cache/mergekit_wise/features"
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="What it takes to go on; beside the output by default."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew where an earlier run was stopped.")] = False,
    keep_epochs: Annotated[bool, typer.Option("--keep-epochs", help="Keep the checkpoint of every epoch.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune a zero-shot checkpoint: the first step of WiSE-FT. Stopped, the same command goes on."""
    from mergekit_wise.api.finetune import finetune
    from mergekit_wise.cli.console import say
    from mergekit_wise.cli.progress import bars

    with stopping(), bars() as progress:
        report = finetune(
            checkpoint,
            data,
            output,
            progress=progress,
            note=say,
            linear=linear,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            micro_batch=micro_batch,
            lr=lr,
            weight_decay=weight_decay,
            warmup=warmup,
            clip=clip,
            label_smoothing=label_smoothing,
            freeze=tuple(freeze or ()),
            ema=ema,
            layer_decay=layer_decay,
            mixup=mixup,
            augment=augment,
            seed=seed,
            model=model,
            root=root,
            classnames=classnames,
            templates=templates,
            precision=precision,
            device=device,
            workers=workers,
            max_bad=max_bad,
            validate=validate,
            log=log or output.with_name(f"{output.name.removesuffix('.safetensors')}.log.jsonl"),
            cache=cache,
            state=state,
            restart=restart,
            keep_epochs=keep_epochs,
        )
    if launcher.rank() == 0:  # of several processes that torchrun started, one speaks
        _print(report, checkpoint, as_json)


@contextmanager
def stopping() -> Iterator[None]:
    """Says how to go on with a run that was stopped."""
    from mergekit_wise.api.finetune import Stopped
    from mergekit_wise.cli.console import fail

    try:
        yield
    except Stopped as stopped:
        fail(str(stopped))
        raise typer.Exit(INTERRUPTED) from None


def _print(report: "FinetuneReport", checkpoint: str, as_json: bool) -> None:
    from mergekit_wise.cli.console import out, show_json

    if as_json:
        show_json(_entry(report))
        return
    last = report.epochs[-1] if report.epochs else None
    learned = f", accuracy {100 * last.accuracy:.1f} % on the images it learned from" if last else ""
    out.print(
        f"{report.output}: {report.steps:,} steps on {report.images:,} images of {report.classes} classes{learned}"
    )
    out.print(f"Try next:\n  wise sweep {checkpoint} {report.output} --suite ...")


def _entry(report: "FinetuneReport") -> dict[str, object]:
    return {
        "output": str(report.output),
        "steps": report.steps,
        "resumed": report.resumed,
        "images": report.images,
        "classes": report.classes,
        "architecture": report.architecture,
        "epochs": [
            {
                "epoch": epoch.number,
                "loss": epoch.loss,
                "accuracy": epoch.accuracy,
                "seconds": epoch.seconds,
                "validation": epoch.validation.entry() if epoch.validation else None,
            }
            for epoch in report.epochs
        ],
    }

"""The command ``wise finetune``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise import launcher

if TYPE_CHECKING:
    from mergekit_wise.api.finetune import FinetuneReport
    from mergekit_wise.options import FinetuneOptions


def finetune(options: "FinetuneOptions", json: bool) -> None:
    """Fine-tune a zero-shot checkpoint: the first step of WiSE-FT. Interrupted runs resume with the same command."""
    from mergekit_wise.api.finetune import finetune
    from mergekit_wise.cli.progress import perform

    output = Path(options.output)
    log = options.log or output.with_name(f"{output.name.removesuffix('.safetensors')}.log.jsonl")
    report = perform(finetune, replace(options, log=log))
    if launcher.rank() == 0:  # of several processes that torchrun started, one prints
        _print(report, options, json)


def _print(report: "FinetuneReport", options: "FinetuneOptions", json: bool) -> None:
    from mergekit_wise.cli.console import out, show_json

    if json:
        show_json(_entry(report))
        return
    last = report.epochs[-1] if report.epochs else None
    learned = f", training accuracy {100 * last.accuracy:.1f} %" if last else ""
    out.print(
        f"{report.output}: {report.steps:,} steps on {report.images:,} images of {report.classes} classes{learned}"
    )
    out.print(f"Try next:\n  wise sweep {options.checkpoint} {report.output} --suite ...")


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

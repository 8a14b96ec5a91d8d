"""The command ``wise demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the demo leaves its files.")] = Path("wise-demo"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of all random numbers.")] = 0,
) -> None:
    """The paper in two minutes: train a small CLIP, fine-tune it, and find the best mixture."""
    from mergekit_wise.api.demo import demo
    from mergekit_wise.cli.console import out, say
    from mergekit_wise.cli.finetune import stopping
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.cli.sweep import show_sweep

    with stopping(), bars() as progress:
        report = demo(folder, seed=seed, progress=progress, note=say)
    if report.reused:
        say(f"Reused what an earlier run trained: {', '.join(map(str, report.reused))}.")
    show_sweep(report.sweep, "digits")
    out.print(f"\n{folder} now holds:", markup=False)
    for path in (report.recipe, report.zeroshot, report.finetuned, report.results, report.plot, report.page):
        out.print(f"  {path.name}", markup=False)
    merged = folder / "merged.safetensors"
    alpha = report.sweep.recommendation.alpha
    out.print("\nTry next:", markup=False)
    out.print(
        f"  wise merge {report.zeroshot} {report.finetuned} --alpha {alpha:g} -o {merged}",
        markup=False,
        soft_wrap=True,
    )
    out.print(f"  wise eval {merged} --suite digits", markup=False, soft_wrap=True)

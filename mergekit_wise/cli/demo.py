"""The command ``wise demo``."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import DemoOptions


def demo(options: "DemoOptions") -> None:
    """Run the paper's experiment in two minutes: train a small CLIP, fine-tune it, and find the best mixture."""
    from mergekit_wise.api.demo import demo
    from mergekit_wise.cli.console import out, say
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.cli.sweep import show_sweep, show_unsaved
    from mergekit_wise.errors import Unsaved

    try:
        report = perform(demo, options)
    except Unsaved as error:
        show_unsaved(error, "digits")
        raise
    if report.reused:
        say(f"Reused from an earlier run: {', '.join(map(str, report.reused))}.")
    show_sweep(report.sweep, "digits")
    out.print(f"\n{options.folder} now holds:")
    for path in (report.recipe, report.zeroshot, report.finetuned, report.results, report.plot, report.page):
        out.print(f"  {path.name}")
    merged = Path(options.folder) / "merged.safetensors"
    alpha = report.sweep.recommendation.alpha
    out.print("\nTry next:")
    out.print(f"  wise merge {report.zeroshot} {report.finetuned} --alpha {alpha:g} -o {merged}", soft_wrap=True)
    out.print(f"  wise eval {merged} --suite digits", soft_wrap=True)

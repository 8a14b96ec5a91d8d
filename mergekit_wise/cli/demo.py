"""The command ``wise demo``."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergekit_wise.api.demo import DemoReport
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
    files = (report.zeroshot, report.finetuned, report.recipe, report.results, report.plot)
    out.print(f"\n{options.folder} holds {', '.join(path.name for path in files)}, and the page with all results:")
    out.print(f"  {report.page}", soft_wrap=True)
    out.print("\nTry next:")
    for words in _next(report):
        out.print(f"  {shlex.join([*_program(), *words])}", soft_wrap=True)


def _next(report: "DemoReport") -> "Iterator[list[str]]":
    """Commands that work in this folder, one after the other."""
    merged = str(report.zeroshot.with_name("merged.safetensors"))
    alpha = f"{report.sweep.recommendation.alpha:g}"
    yield ["merge", str(report.zeroshot), str(report.finetuned), "--alpha", alpha, "-o", merged]
    yield ["eval", merged, "--suite", "digits"]
    yield ["compare", str(report.results), "--against", "1"]


def _program() -> list[str]:
    """How this program was called, for a shell that may not find it by its name."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "mergekit_wise"]
    found = shutil.which(called.name)
    return [called.name] if found is not None and os.path.samefile(found, called) else [str(called)]

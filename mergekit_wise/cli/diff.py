"""The command ``wise diff``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.diff import DiffReport
    from mergekit_wise.options import DiffOptions


def diff(options: "DiffOptions", json: bool) -> None:
    """Compare two checkpoints: names, shapes, and how far each layer moved."""
    from mergekit_wise.api.diff import diff
    from mergekit_wise.cli.console import notes, out, say, show, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.report.terminal_tables import class_table, movement_table

    report = perform(diff, options)
    notes(report.notes)
    if json:
        show_json(asdict(report))
        return
    for line in _missing(report, Path(options.zeroshot).name, Path(options.finetuned).name):
        out.print(line)
    moved = [m for m in report.movements if not m.equal]
    if moved:
        show(movement_table(moved), "How far the weights moved, largest first")
    for head in (m for m in moved if m.by_class):
        out.print()
        show(class_table(head), f"{head.name}, class by class")
    equal = len(report.movements) - len(moved)
    say(f"{plural(equal, 'tensor')} {'is' if equal == 1 else 'are'} equal.")


def _missing(report: "DiffReport", first: str, second: str) -> list[str]:
    from mergekit_wise.wording import fold_names

    lines = []
    for title, names in (
        (f"only in {first}", report.missing.only_zeroshot),
        (f"only in {second}", report.missing.only_finetuned),
        ("of different shape", report.missing.shapes),
    ):
        if names:
            lines += [f"{title} ({len(names)}):", *(f"  {line}" for line in fold_names(names)), ""]
    return lines

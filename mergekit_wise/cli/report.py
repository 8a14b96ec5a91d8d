"""The command ``wise report``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import ReportOptions


def report(options: "ReportOptions") -> None:
    """Create a self-contained HTML report: curves, plots, tables, analysis and how everything was measured."""
    from mergekit_wise.api.report import write_report
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.option_types import run

    found = run(write_report, options)
    notes(found.notes)
    for path in found.files:
        out.print(f"Wrote {path}", soft_wrap=True)
    for folder, count in found.folders.items():
        out.print(f"Wrote {plural(count, 'plot')} to {folder}", soft_wrap=True)

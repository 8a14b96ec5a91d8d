"""The command ``wise report``."""

from mergekit_wise.options import ReportOptions


def report(options: ReportOptions) -> None:
    """Create a self-contained HTML report: curves, plots, tables, analysis and how everything was measured."""
    from mergekit_wise.api.report import report
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.declaration import run

    found = run(report, options)
    notes(found.notes)
    for path in found.files:
        out.print(f"Wrote {path}", soft_wrap=True)
    for folder, count in found.folders.items():
        out.print(f"Wrote {count} {'plot' if count == 1 else 'plots'} to {folder}", soft_wrap=True)

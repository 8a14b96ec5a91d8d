"""The command ``wise report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="JSON Lines files; several are compared.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page: one HTML file that needs nothing else.")
    ] = Path("report.html"),
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="Draw this suite alone.", show_default=False)
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each plot as PNG.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each plot as SVG.")] = None,
    pdf: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each plot as PDF.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all numbers as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables in Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables in LaTeX.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Other models' accuracies, to draw effective robustness from.")
    ] = None,
    axis: Annotated[
        str, typer.Option(metavar="AXIS", help="On which that is a straight line: logit or probit.")
    ] = "logit",
) -> None:
    """Draw what was measured as a page to hand on: curves, plots, tables, analysis, and how it was measured."""
    from mergekit_wise.api.report import report
    from mergekit_wise.cli.console import notes, out

    found = report(
        results,
        output=output,
        suite=suite,
        png=png,
        svg=svg,
        pdf=pdf,
        csv=csv,
        markdown=markdown,
        latex=latex,
        baseline=baseline,
        axis=axis,
    )
    notes(found.notes)
    for path in found.files:
        out.print(f"Wrote {path}", markup=False, soft_wrap=True)
    for folder, count in found.folders.items():
        out.print(f"Wrote {count} plots to {folder}", markup=False, soft_wrap=True)

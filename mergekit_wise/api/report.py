"""Results files as a self-contained HTML page, and as plots and tables for papers. No model is loaded."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.analysis import Axis, Baseline, fit_baselines
from mergekit_wise.checkpoint import require_folder
from mergekit_wise.errors import OutputError, ResultsError, UsageError
from mergekit_wise.report.comparison import Comparison, compare
from mergekit_wise.report.exports import as_csv, as_latex, as_markdown
from mergekit_wise.report.figures import Format, draw_plots
from mergekit_wise.report.page import render_page
from mergekit_wise.report.page_tables import results_table
from mergekit_wise.report.plots import alpha_plots, scatter_plots
from mergekit_wise.report.summary import summarize
from mergekit_wise.report.warnings import warnings
from mergekit_wise.results import Reading, read_results


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files that were written, and the notes that are also on the page.

    Attributes:
        files: the page, then the exported tables.
        folders: the number of plots written to each folder.
        notes: lines that were skipped, and warnings about records that cannot be compared.
    """

    files: tuple[Path, ...]
    folders: Mapping[Path, int]
    notes: tuple[str, ...]


def report(
    results: Sequence[str | Path],
    *,
    output: str | Path = "report.html",
    suite: str | None = None,
    png: str | Path | None = None,
    svg: str | Path | None = None,
    pdf: str | Path | None = None,
    csv: str | Path | None = None,
    markdown: str | Path | None = None,
    latex: str | Path | None = None,
    baseline: str | Path | None = None,
    axis: str = "logit",
) -> ReportFiles:
    """Create a report from the results files of `sweep` and `evaluate`; several files are compared side by side.

    Args:
        results: JSON Lines files.
        output: the page, one HTML file that makes no network requests.
        suite: include only this suite; by default the page has a section for each.
        png: folder for the plots as PNG, one file each; created if it is missing. The folders of all other outputs
            must exist.
        svg: folder for the plots as SVG.
        pdf: folder for the plots as PDF.
        csv: file for all numbers, one line each.
        markdown: file for the results table in Markdown.
        latex: file for the results table in LaTeX.
        baseline: a table of other models' accuracies (CSV: name, reference, one column per shift). The baselines of
            effective robustness are fitted to it instead of taken from the published ones.
        axis: logit or probit, the scale on which those baselines are straight lines.

    Raises:
        ResultsError: a file cannot be read, or no file holds a record.
        UsageError: no record belongs to the suite, two outputs are the same file, or the axis is unknown.
        OutputError: an output cannot be written, or would replace a results file.
    """
    if axis not in ("logit", "probit"):
        raise UsageError(f"--axis {axis}: expected logit or probit.")
    paths = [Path(path) for path in results]
    exports = {name: Path(path) for name, path in {"csv": csv, "markdown": markdown, "latex": latex}.items() if path}
    kinds: dict[Format, str | Path | None] = {"png": png, "svg": svg, "pdf": pdf}
    folders = {kind: Path(path) for kind, path in kinds.items() if path is not None}
    _check_outputs(paths, [Path(output), *exports.values()], list(folders.values()))
    reading = _of_suite(read_results(paths), suite)
    baselines = _read_baselines(Path(baseline), axis) if baseline is not None else {}  # type: ignore[arg-type]
    comparisons = compare(reading, baselines)
    summaries = [summarize(comparison) for comparison in comparisons]
    notes = (*reading.notes, *warnings(reading, comparisons))
    tables = [results_table(summary) for summary in summaries]
    texts = {"csv": as_csv(comparisons), "markdown": as_markdown(tables), "latex": as_latex(tables)}
    files = {Path(output): render_page(summaries, notes), **{path: texts[name] for name, path in exports.items()}}
    plots = _plots(comparisons, folders)
    for path, content in ({path: text.encode() for path, text in files.items()} | plots).items():
        _write(path, content)
    return ReportFiles(tuple(files), Counter(path.parent for path in plots), notes)


def _read_baselines(path: Path, axis: Axis) -> dict[str, Baseline]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: the table of other models' accuracies cannot be read: {error}.") from error
    return fit_baselines(text, path.name, axis)


def _check_outputs(results: Sequence[Path], outputs: Sequence[Path], folders: Sequence[Path]) -> None:
    read = {path.resolve() for path in results}
    seen: set[Path] = set()
    for path in (*outputs, *folders):
        require_folder(path)
    for path in outputs:
        if path.resolve() in read:
            raise OutputError(f"{path} is a results file and would be replaced. Choose another file.")
        if path.resolve() in seen:
            raise UsageError(f"{path} is given for two outputs. Give each output a file of its own.")
        seen.add(path.resolve())


def _of_suite(reading: Reading, suite: str | None) -> Reading:
    if suite is None:
        return reading
    measurements = tuple(row for row in reading.measurements if row.suite == suite)
    if not measurements:
        there = ", ".join(dict.fromkeys(row.suite for row in reading.measurements))
        raise UsageError(f"--suite {suite}: no record belongs to it. The records belong to: {there}.")
    findings = tuple(finding for finding in reading.findings if finding.suite == suite)
    return Reading(measurements, findings, reading.notes)


def _plots(comparisons: Sequence[Comparison], folders: Mapping[Format, Path]) -> dict[Path, bytes]:
    plots = [plot for comparison in comparisons for plot in (*scatter_plots(comparison), *alpha_plots(comparison))]
    return {
        folder / name: content for kind, folder in folders.items() for name, content in draw_plots(plots, kind).items()
    }


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or nothing: an earlier file stays until the new one is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}. Choose another place.") from error

"""Results files as a self-contained HTML page, and as plots and tables for papers. No model is loaded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.analysis import Baseline, fit_baselines
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import require_output, require_output_folder, write_atomically
from mergekit_wise.errors import OutputError, ResultsError, UsageError
from mergekit_wise.option_types import files_of, takes
from mergekit_wise.options import ReportOptions
from mergekit_wise.report.choices import difference_tables
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.exports import as_csv, as_latex, as_markdown
from mergekit_wise.report.figures import Format, draw_plots, figure_content, require_drawable, texts_of, unshown
from mergekit_wise.report.folders import distinct, suites_named, without_folders
from mergekit_wise.report.heat_map import HeatMap, heat_maps
from mergekit_wise.report.labels import labelled
from mergekit_wise.report.overview import overview_plots
from mergekit_wise.report.page import render_page
from mergekit_wise.report.page_tables import results_table
from mergekit_wise.report.paper_plots import every_plot
from mergekit_wise.report.paper_table import paper_table
from mergekit_wise.report.plots import Plot
from mergekit_wise.report.summary import Summary, summarize
from mergekit_wise.report.table import Table
from mergekit_wise.report.warnings import warnings
from mergekit_wise.results import Reading, read_results
from mergekit_wise.wording import plural


@dataclass(frozen=True, slots=True, repr=False)
class ReportFiles(ResultObject):
    """The files that were written, and the notes that are also on the page.

    Attributes:
        files: the page, then the exported tables, then the figure.
        folders: the number of plots written to each folder.
        notes: lines that were skipped, and warnings about records that cannot be compared.
    """

    files: tuple[Path, ...]
    folders: Mapping[Path, int]
    notes: tuple[str, ...]

    def _summary(self) -> str:
        plots = f", {plural(sum(self.folders.values()), 'plot')}" if self.folders else ""
        return f"{', '.join(path.name for path in self.files)}{plots}"

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [
            *({"path": path, "plots": None} for path in self.files),
            *({"path": path, "plots": count} for path, count in self.folders.items()),
        ]

    def _tables(self) -> Sequence[Table]:
        rows = [(str(row["path"]), "" if row["plots"] is None else str(row["plots"])) for row in self._rows()]
        return [Table.of_texts(("Written", "Plots"), rows)]


@takes(ReportOptions)
def write_report(options: ReportOptions) -> ReportFiles:
    """Create a report from the results files of `sweep` and `evaluate`; several files are compared side by side.

    Folders for plots are created if they are missing; the folders of all other outputs must exist.

    Raises:
        ResultsError: a file cannot be read, or no file holds a record.
        UsageError: no record belongs to the suite, a label is for a name that the results do not have, two outputs
            are the same file, or `figure` has nothing to draw, or several suites.
        OutputError: an output cannot be written, or would replace a results file.
    """
    paths = files_of(options.results)
    exports = {"csv": options.csv, "markdown": options.markdown, "latex": options.latex, "table": options.table}
    wanted = {name: path for name, path in exports.items() if path is not None}
    kinds: dict[Format, Path | None] = {"png": options.png, "svg": options.svg, "pdf": options.pdf}
    folders = {kind: path for kind, path in kinds.items() if path is not None}
    output = Path(options.output)
    require_outputs(options)
    found = labelled(without_folders(_of_suite(read_results(paths), options.suite)), options.labels)
    reading = found.reading
    baselines = {} if options.baseline is None else _read_baselines(options.baseline, options.axis)
    comparisons = compare(reading, baselines, found.ends)
    summaries = [summarize(comparison) for comparison in comparisons]
    notes = (*reading.notes, *warnings(reading, comparisons))
    tables = [
        table for summary in summaries for table in (results_table(summary), *difference_tables(summary.comparison))
    ]
    texts = {
        "csv": as_csv(comparisons),
        "markdown": as_markdown(tables),
        "latex": as_latex(tables),
        "table": "\n".join(map(paper_table, summaries)),
    }
    files = {
        output: render_page(summaries, notes, reading.estimations).encode(),
        **{path: texts[name].encode() for name, path in wanted.items()},
    }
    if options.figure is not None:
        files[options.figure], left_out = _figure(summaries, options)
        notes += left_out
    if options.figure is not None or folders:
        notes += unshown(texts_of(plot for summary in summaries for plot in _drawn(summary)))
    plots = _plots(summaries, folders)
    for path, content in (files | plots).items():
        _write(path, content)
    return ReportFiles(tuple(files), Counter(path.parent for path in plots), notes)


def require_outputs(options: ReportOptions) -> None:
    """Raise OutputError, before any work is done, if an output cannot be written."""
    for path in filter(None, (Path(options.output), options.csv, options.markdown, options.latex, options.table)):
        require_output(path)
    if options.figure is not None:
        require_drawable(options.figure)
    for folder in filter(None, (options.png, options.svg, options.pdf)):
        require_output_folder(folder)


def _read_baselines(path: Path, axis: str) -> dict[str, Baseline]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: the table of other models' accuracies cannot be read: {error}.") from error
    return fit_baselines(text, path.name, axis)  # type: ignore[arg-type]  # checked by ReportOptions


def _of_suite(reading: Reading, suite: str | None) -> Reading:
    if suite is None:
        return reading
    names = distinct(row.suite for row in reading.measurements)
    named = suites_named(suite, names)
    if not named:
        raise UsageError(f"--suite {suite}: no record belongs to it. The records belong to: {', '.join(names)}.")
    measurements = tuple(row for row in reading.measurements if row.suite in named)
    findings = tuple(finding for finding in reading.findings if finding.suite in named)
    estimations = tuple(estimation for estimation in reading.estimations if estimation.suite in named)
    choices = tuple(choice for choice in reading.choices if choice.suite in named)
    return Reading(measurements, findings, reading.notes, estimations, choices)


def _figure(summaries: Sequence[Summary], options: ReportOptions) -> tuple[bytes, tuple[str, ...]]:
    """The content of the figure for papers, and notes on what it leaves out."""
    from mergekit_wise.report.paper_figure import paper_figure

    if len(summaries) > 1:
        suites = ", ".join(summary.comparison.suite for summary in summaries)
        raise UsageError(f"--figure {options.figure}: it shows one suite, found {suites}. Choose one with --suite.")
    drawn = paper_figure(summaries[0], options.width)  # type: ignore[arg-type]  # checked by ReportOptions
    if drawn is None:
        raise UsageError(
            f"--figure {options.figure}: the results hold nothing to draw, neither a reference with a shift nor two "
            "mixtures. Leave --figure out."
        )
    figure, left_out = drawn
    return figure_content(figure, Path(str(options.figure))), left_out


def _plots(summaries: Sequence[Summary], folders: Mapping[Format, Path]) -> dict[Path, bytes]:
    plots = [plot for summary in summaries for plot in _drawn(summary)]
    return {
        folder / name: content for kind, folder in folders.items() for name, content in draw_plots(plots, kind).items()
    }


def _drawn(summary: Summary) -> tuple[Plot | HeatMap, ...]:
    """All plots of a suite."""
    return (*every_plot(summary), *overview_plots(summary), *heat_maps(summary))


def _write(path: Path, content: bytes) -> None:
    """Write a file, and create its folder if that is for plots."""
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be created: {error.strerror}. Choose another folder.") from error
    write_atomically(path, content)

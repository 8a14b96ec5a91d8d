"""Results files as a page to hand on, and as plots and tables for papers. No model is touched."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.analysis import Baseline
from mergekit_wise.checkpoint import require_folder, write_atomically
from mergekit_wise.declaration import files_of, takes
from mergekit_wise.errors import OutputError, ResultsError, UsageError
from mergekit_wise.options import ReportOptions
from mergekit_wise.report.baseline import fitted
from mergekit_wise.report.comparison import Comparison, compare
from mergekit_wise.report.exports import as_csv, as_latex, as_markdown
from mergekit_wise.report.figures import Format, draw_panels
from mergekit_wise.report.page import Story, draw_page
from mergekit_wise.report.panels import alpha_panels, scatter_panels
from mergekit_wise.report.reading import Reading, read_results
from mergekit_wise.report.sheet import accuracy_sheet
from mergekit_wise.report.summary import judge
from mergekit_wise.report.warnings import remarks


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What was written, and what a reader must know of the records; the page says it too.

    Attributes:
        files: the page, then tables.
        folders: how many plots were written to each.
        notes: sentences.
    """

    files: tuple[Path, ...]
    folders: Mapping[Path, int]
    notes: tuple[str, ...]


@takes(ReportOptions)
def report(options: ReportOptions) -> ReportFiles:
    """Draw what `sweep` and `evaluate` left in results files, several of them side by side.

    Folders for plots are made where they are missing; everything else is written into folders that exist.

    Raises:
        ResultsError: a file cannot be read, or none holds a record.
        UsageError: no record is of the suite, or two outputs are the same file.
        OutputError: an output cannot be written, or would replace a results file.
    """
    paths = files_of(options.results)
    tables = {"csv": options.csv, "markdown": options.markdown, "latex": options.latex}
    wanted = {name: path for name, path in tables.items() if path is not None}
    kinds: dict[Format, Path | None] = {"png": options.png, "svg": options.svg, "pdf": options.pdf}
    folders = {kind: path for kind, path in kinds.items() if path is not None}
    output = Path(options.output)
    _check_outputs(paths, [output, *wanted.values()], list(folders.values()))
    reading = _of_suite(read_results(paths), options.suite)
    lines = _lines(options.baseline, options.axis) if options.baseline is not None else {}
    comparisons = compare(reading.measurements, reading.findings, lines)
    stories = [Story(each, tuple(judge(each, curve) for curve in each.curves)) for each in comparisons]
    notes = (*reading.notes, *remarks(reading, comparisons))
    sheets = [accuracy_sheet(story.comparison, story.verdicts) for story in stories]
    texts = {"csv": as_csv(comparisons), "markdown": as_markdown(sheets), "latex": as_latex(sheets)}
    files = {output: draw_page(stories, notes), **{path: texts[name] for name, path in wanted.items()}}
    plots = _plots(comparisons, folders)
    for path, content in ({path: text.encode() for path, text in files.items()} | plots).items():
        _write(path, content)
    return ReportFiles(tuple(files), Counter(path.parent for path in plots), notes)


def _lines(path: Path, axis: str) -> dict[str, Baseline]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: the table of other models cannot be read: {error}.") from error
    return fitted(text, path.name, axis)


def _check_outputs(results: Sequence[Path], outputs: Sequence[Path], folders: Sequence[Path]) -> None:
    read = {path.resolve() for path in results}
    seen: set[Path] = set()
    for path in (*outputs, *folders):
        require_folder(path)
    for path in outputs:
        if path.resolve() in read:
            raise OutputError(f"{path} is a file of results and would be replaced. Choose another file.")
        if path.resolve() in seen:
            raise UsageError(f"{path} is asked for twice. Give each output a file of its own.")
        seen.add(path.resolve())


def _of_suite(reading: Reading, suite: str | None) -> Reading:
    if suite is None:
        return reading
    measurements = tuple(row for row in reading.measurements if row.suite == suite)
    if not measurements:
        there = ", ".join(dict.fromkeys(row.suite for row in reading.measurements))
        raise UsageError(f"No record is of the suite {suite!r}. There are records of: {there}.")
    findings = tuple(finding for finding in reading.findings if finding.suite == suite)
    return Reading(measurements, findings, reading.notes)


def _plots(comparisons: Sequence[Comparison], folders: Mapping[Format, Path]) -> dict[Path, bytes]:
    panels = [panel for each in comparisons for panel in (*scatter_panels(each), *alpha_panels(each))]
    return {
        folder / name: content
        for kind, folder in folders.items()
        for name, content in draw_panels(panels, kind).items()
    }


def _write(path: Path, content: bytes) -> None:
    """Write a file, and create its folder if that is for plots."""
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be created: {error.strerror}. Choose another folder.") from error
    write_atomically(path, content)

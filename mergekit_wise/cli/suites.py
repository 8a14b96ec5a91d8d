"""The command ``wise suites``."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.suites import DatasetStatus, SuitesReport
    from mergekit_wise.options import SuitesOptions

    Groups = dict[str, list[DatasetStatus]]

_MAX_ROWS = 20
"""A suite with more data sets than this is shown as one row."""


def suites(options: "SuitesOptions", json: bool) -> None:
    """List data sets and suites: which were found, and how to get the rest."""
    from mergekit_wise.api.suites import suites
    from mergekit_wise.cli.console import notes, say, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.datasets.catalog import NO_ROOT

    report = perform(suites, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    if report.root is None and any(status.places for status in report.data_sets):
        say(NO_ROOT)
    _show_data_sets(report)
    _show_suites(report)


def _show_data_sets(report: "SuitesReport") -> None:
    from rich.text import Text

    from mergekit_wise.cli.console import out

    under = "" if report.root is None else f" under {report.root}"
    out.print(Text(f"Data sets{under}", style="bold"), soft_wrap=True)
    found = _groups(report, [status for status in report.data_sets if status.images is not None])
    rows = [
        (name, _images(statuses), os.path.commonpath([status.location or "" for status in statuses]))
        for name, statuses in found.items()
    ]
    _print_table(
        ("Data set", "Images", "Where"),
        rows,
        incomplete=[not all(status.complete for status in statuses) for statuses in found.values()],
    )
    for status in report.data_sets:
        for note in status.notes:
            out.print_message(note, f"{status.name}: ", "cyan")
    damaged = [status for status in report.data_sets if status.problem]
    missing = [status for status in report.data_sets if status.images is None and not status.problem]
    for title, some in (("Damaged", damaged), ("Not found", missing)):
        if some:
            out.print(Text(f"\n{title}", style="bold"))
        names: dict[str, list[str]] = {}
        for name, statuses in _groups(report, some).items():
            text = " ".join(dict.fromkeys(status.problem or status.hint for status in statuses))
            names.setdefault(text, []).append(name)
        for text, same in names.items():
            out.print_message(text, f"{', '.join(same)}: ", "yellow")


def _show_suites(report: "SuitesReport") -> None:
    from mergekit_wise.cli.console import out

    if not report.suites:
        return
    out.print()
    rows = [(suite.name, f"{suite.found} of {len(suite.data_sets)}", suite.title) for suite in report.suites]
    _print_table(("Suite", "Data sets", ""), rows, incomplete=[False] * len(rows))


def _print_table(columns: tuple[str, str, str], rows: list[tuple[str, str, str]], incomplete: list[bool]) -> None:
    """Print three columns, the second of numbers; incomplete rows are highlighted."""
    from rich.table import Table
    from rich.text import Text

    from mergekit_wise.cli.console import out

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    table.add_column(columns[1], justify="right", no_wrap=True)
    table.add_column(columns[2], overflow="fold")
    for row, highlighted in zip(rows, incomplete, strict=True):
        table.add_row(*map(Text, row), style="yellow" if highlighted else "")
    out.print(table)


def _groups(report: "SuitesReport", statuses: "list[DatasetStatus]") -> "Groups":
    """Each data set by itself, but the data sets of a large suite such as imagenet-c together."""
    large = [suite.name for suite in report.suites if len(suite.data_sets) > _MAX_ROWS]
    groups: Groups = {}
    for status in statuses:
        suite = next((name for name in large if status.name.startswith(f"{name}-")), status.name)
        groups.setdefault(suite, []).append(status)
    return {f"{name} ({len(some)})" if name in large else name: some for name, some in groups.items()}


def _images(statuses: "list[DatasetStatus]") -> str:
    images = sum(status.images or 0 for status in statuses)
    expected = sum(status.expected or 0 for status in statuses)
    if not all(status.complete for status in statuses):
        return f"{images:,} of {expected:,}"
    if all(status.verified or status.expected is None for status in statuses) or images == expected:
        return f"{images:,}"
    return f"{images:,} of about {expected:,}, unverified"

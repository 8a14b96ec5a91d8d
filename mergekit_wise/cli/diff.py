"""The command ``wise diff``."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.diff import DiffReport
    from mergekit_wise.merging import Movement
    from mergekit_wise.options import DiffOptions


def diff(options: "DiffOptions", json: bool) -> None:
    """Compare two checkpoints: names, shapes, and how far each layer moved."""
    from mergekit_wise.cli.console import out

    if json:
        _print_json(options)
    elif out.on_screen:
        _print_tables(options)
    else:
        _print_lines(options)


def _print_json(options: "DiffOptions") -> None:
    from mergekit_wise.api.diff import diff
    from mergekit_wise.cli.console import notes, show_json
    from mergekit_wise.cli.progress import perform

    report = perform(diff, options)
    notes(report.notes)
    show_json(report.to_dict())


def _print_tables(options: "DiffOptions") -> None:
    """For people: what is known of the two first, then repeated layers in one row, the largest change first."""
    from mergekit_wise.api.diff import diff
    from mergekit_wise.cli.console import notes, out, show
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.report.tensor_tables import class_table, movement_table

    report = perform(diff, options)
    notes(report.notes)
    counts = Counter(map(_status, report.movements))
    for line in (*_summary(report, options), *_counts(report, counts, options), ""):
        out.print(line)
    moved = [m for m in report.movements if not m.equal]
    if moved:
        show(movement_table(moved), "How far the weights moved, largest first")
    for head in (m for m in moved if m.by_class):
        out.print()
        show(class_table(head), f"{head.name}, class by class")


def _print_lines(options: "DiffOptions") -> None:
    """For files and pipes: a line per tensor, in the order of the file, as soon as it is known; the rest on stderr."""
    from mergekit_wise.api.diff import comparing
    from mergekit_wise.cli.console import line_writer, notes, say
    from mergekit_wise.cli.progress import bars

    first, second = _names(options)
    counts: Counter[str] = Counter()
    write = line_writer("Tensor", "Status", "|b - a| / |a|", "Cosine")
    with bars() as progress, comparing(replace(options, progress=progress)) as found:
        report = found.report
        notes(report.notes)
        for line in _summary(report, options):
            say(line)
        for names, status in (
            (report.missing.only_zeroshot, f"only in {first}"),
            (report.missing.only_finetuned, f"only in {second}"),
            (report.missing.shapes, "of different shape"),
        ):
            for name in names:
                write((name, status, "", ""))
        for movement in found.movements:
            counts[_status(movement)] += 1
            for row in _rows(movement):
                write(row)
    for line in _counts(report, counts, options):
        say(line)


def _rows(movement: "Movement") -> Iterator[tuple[str, str, str, str]]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    yield movement.name, _status(movement), number(movement.relative), number(movement.cosine)
    if not movement.equal:
        for index, cosine in enumerate(movement.by_class):
            yield f"{movement.name}[{index}]", "class", "", number(cosine)


def _status(movement: "Movement") -> str:
    return "equal" if movement.equal else "equal up to rounding" if movement.rounded else "moved"


def _names(options: "DiffOptions") -> tuple[str, str]:
    first, second = str(options.zeroshot), str(options.finetuned)
    if Path(first).name != Path(second).name:
        first, second = Path(first).name, Path(second).name
    return first, second


def _summary(report: "DiffReport", options: "DiffOptions") -> list[str]:
    """What the two files are; why they do not fit, if they do not."""
    if report.refusal is not None:
        return report.refusal.split("\n")
    if report.zeroshot == report.finetuned:
        return [f"both files: {report.zeroshot}"]
    return [f"{name}: {each}" for name, each in zip(_names(options), (report.zeroshot, report.finetuned), strict=True)]


def _counts(report: "DiffReport", counts: Counter[str], options: "DiffOptions") -> list[str]:
    """How many tensors are what."""
    found = [(counts[status], status) for status in ("moved", "equal up to rounding", "equal")]
    first, second = _names(options)
    found += [
        (len(report.missing.only_zeroshot), f"only in {first}"),
        (len(report.missing.only_finetuned), f"only in {second}"),
        (len(report.missing.shapes), "of different shape"),
    ]
    return [
        f"{plural(count, 'tensor')} {'' if what == 'moved' else 'is ' if count == 1 else 'are '}{what}."
        for count, what in found
        if count
    ]

"""The command ``wise doctor``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mergekit_wise.diagnosis.finding import Finding, Section
    from mergekit_wise.options import DoctorOptions

NAMES = 18
"""Columns of the names of findings; a longer name moves its value to the right."""

STYLES = {"note": "yellow", "problem": "bold red", "error": "bold red"}


def doctor(options: "DoctorOptions", json: bool) -> None:
    """Examine the installation, the machine, the folders and the hub, and say how to fix what does not work."""
    from mergekit_wise.api.doctor import DoctorReport, examine
    from mergekit_wise.cli.console import out, show_json

    sections = []
    for section in examine(options):
        sections.append(section)
        if not json:
            _show(section, is_first=len(sections) == 1)
    report = DoctorReport(tuple(sections))
    if json:
        show_json(report.to_dict())
    else:
        out.print()
        for line in _conclusion(report.problems, usable=report.usable):
            out.print(line)
    if not report.usable:
        raise typer.Exit(1)


def _show(section: "Section", *, is_first: bool) -> None:
    """Print a section at once: the next one may take seconds."""
    from mergekit_wise.cli.console import out

    if not is_first:
        out.print()
    out.print_message("", section.title, "bold")
    for finding in section.findings:
        for line in _wrapped(finding, out.width):
            out.print(line, soft_wrap=True)
        if finding.text and finding.level:
            out.print_message(f"{finding.text}.", f"    {finding.level}: ", STYLES[finding.level])
        if finding.command and finding.level:
            out.print(f"    {finding.command}", soft_wrap=True)


def _wrapped(finding: "Finding", width: int) -> Iterator[str]:
    """The lines of a finding's name and value; those after the first are below the value."""
    from textwrap import wrap

    command = "" if finding.level else finding.command  # one that fixes a problem has a line below it
    lead = f"  {finding.name:<{NAMES}}" + ("" if len(finding.name) < NAMES else " ")
    room = max(20, width - 2 - NAMES)
    if command and len(finding.value) + len(command) + 2 <= room:
        lines = [f"{finding.value}: {command}"]
    else:  # a command is not broken, so that it can be copied
        value = f"{finding.value}:" if command else finding.value
        lines = wrap(value, room, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [command] if command else []
    yield (lead + lines[0]).rstrip()
    yield from (" " * (2 + NAMES) + line for line in lines[1:])


def _conclusion(problems: "tuple[Finding, ...]", *, usable: bool) -> Iterator[str]:
    from mergekit_wise.wording import listed, plural

    if problems:
        yield f"{plural(len(problems), 'problem')}: {listed(finding.name for finding in problems)}."
    else:
        yield "No problems found."
    if not usable:
        yield "wise cannot be used as it is. Run the commands above that follow an error."
    yield "For a bug report, send what 'wise doctor --json' prints."

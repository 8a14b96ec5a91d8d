"""Writes docs/commands.md from the declared options. Run as ``make docs``; a test fails when the page is stale."""

import re
from pathlib import Path
from typing import Any

import typer

from mergekit_wise.cli.app import app
from mergekit_wise.cli.command import Command
from mergekit_wise.cli.parameters import default_of
from mergekit_wise.option_types import Declared
from mergekit_wise.options import GROUPS, options_of

PAGE = Path(__file__).parent / "commands.md"

INTRODUCTION = """# Commands

Written from the declared options by `make docs`. Every command also answers `--help`.

Options of a command can also be given in [`wise.toml`](configuration.md), where an option `--batch-size` is the key
`batch-size`. Every flag has a negative that begins with `--no-`.

Exit codes: 0 done, 1 the work failed, 2 the command line is wrong, 130 or 143 interrupted (Ctrl-C, SIGTERM).
"""


def reference() -> str:
    """The page: every command with its arguments, options, choices and defaults."""
    wise: Any = typer.main.get_command(app)
    own = [(f"`{', '.join(param.opts)}`", "", param.help) for param in wise.params]
    return "\n".join([INTRODUCTION, "## wise\n", _table(own), *map(_section, _commands(wise))])


def _commands(group: Any) -> list[Command]:
    """Every command; of a group those in it."""
    found: list[Command] = []
    for command in group.commands.values():
        found += [command] if isinstance(command, Command) else _commands(command)
    return found


def _section(command: Command) -> str:
    words = command.table.replace("-", " ")
    context = command.make_context(f"wise {words}", ["--help"], resilient_parsing=True)
    usage = " ".join([f"wise {words}", *command.collect_usage_pieces(context)])
    parts = [f"## wise {words}\n", f"`{usage}`\n", f"{command.help}\n"]
    if command.examples:
        parts.append("```sh\n" + "\n".join(command.examples) + "\n```\n")
    options = list(options_of(command.table).values())
    groups = {"Arguments": [option for option in options if option.option.is_argument]}
    for group in GROUPS:
        groups[group] = [o for o in options if o.option.group == group and not o.option.is_argument]
    parts += [f"**{group}**\n\n{_table(map(_row, found))}" for group, found in groups.items() if found]
    return "\n".join(parts)


def _row(option: Declared) -> tuple[str, str, str]:
    if option.option.is_argument:
        name = f"`{option.metavar}{'...' if option.is_repeated else ''}`"
    else:
        short = f"`{option.option.short}`, " if option.option.short else ""
        negative = "no-" if option.is_flag and option.default else ""
        name = f"{short}`{f'--{negative}{option.key} {option.metavar}'.rstrip()}`"
    default = "required" if option.is_required else default_of(option)
    return name, default and f"{default}" if default == "required" else default and f"`{default}`", option.option.help


def _table(rows: Any) -> str:
    lines = [f"| {_cell(name)} | {_cell(default)} | {_cell(_quoted(text))} |" for name, default, text in rows]
    return "\n".join(["| | default | |", "| --- | --- | --- |", *lines, ""])


def _quoted(text: str) -> str:
    """A text with names of options as code."""
    return re.sub(r"(?<![\S`])--[a-z][a-z-]*", r"`\g<0>`", text)


def _cell(text: str) -> str:
    """A text that ends no cell of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

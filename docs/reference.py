"""Writes docs/commands.md from the commands themselves. Run as ``make docs``; a test fails when the file is stale."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from mergekit_wise.cli.app import app

PAGE = Path(__file__).parent / "commands.md"


def reference() -> str:
    """The page: every command with its arguments, options and defaults."""
    wise: Any = typer.main.get_command(app)
    parts = [
        "# Commands\n\nWritten from the commands by `make docs`. Every command also answers `--help`.\n",
        "Exit codes: 0 done, 1 the work failed, 2 the command line is wrong, 130 interrupted.\n",
        "## wise\n\n" + _table(wise),
        *(_section(name, command) for name, command in _commands(wise)),
    ]
    return "\n".join(parts)


def _commands(group: Any, path: str = "wise") -> Iterator[tuple[str, Any]]:
    """Commands with all their words; of a group those in it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _section(name: str, command: Any) -> str:
    arguments = [_usage(param) for param in command.params if param.param_type_name == "argument"]
    usage = " ".join([name, *arguments, "[OPTIONS]"])
    return f"## {name}\n\n`{usage}`\n\n{command.help}\n\n{_table(command)}"


def _usage(argument: Any) -> str:
    """As it stands in a usage line: what may be left out in brackets, what may be repeated with dots."""
    name = _metavar(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _table(command: Any) -> str:
    rows = "\n".join(f"| {_names(p)} | {_default(p)} | {_cell(_help(p))} |" for p in command.params)
    return f"| | default | |\n| --- | --- | --- |\n{rows}\n"


def _names(param: Any) -> str:
    """An argument as the help shows it; an option by all its names, the first one with its value."""
    if param.param_type_name == "argument":
        return f"`{_metavar(param)}`"
    first, *others = param.opts
    value = f" {param.metavar}" if param.metavar else ""
    return ", ".join([f"`{_cell(first + value)}`", *(f"`{name}`" for name in others)])


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _default(param: Any) -> str:
    if param.required:
        return "required"
    return "" if param.default is None or param.default is False else f"`{param.default}`"


def _help(param: Any) -> str:
    repeated = param.param_type_name == "option" and param.multiple
    more = " May be repeated." if repeated and "repeated" not in param.help else ""
    text = re.sub(r"(?<!\S)--[a-z][a-z-]*", r"`\g<0>`", param.help)
    usual = f" By default `{param.show_default}`." if isinstance(param.show_default, str) else ""
    return f"{text}{more}{usual}" + (f" Else `{param.envvar}`, if it is set." if param.envvar else "")


def _cell(text: str) -> str:
    """A text that ends no cell of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

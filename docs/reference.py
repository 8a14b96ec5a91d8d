"""Writes docs/commands.md from the commands themselves. Run as ``make docs``; a test fails when the file is stale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mergekit_wise.cli.app import app

PAGE = Path(__file__).parent / "commands.md"


def reference() -> str:
    """The page: every command with its arguments, options and defaults."""
    wise: Any = typer.main.get_command(app)
    parts = [
        "# Commands\n\nWritten from the commands by `make docs`. Every command also answers `--help`.\n",
        "Exit codes: 0 done, 1 the work failed, 2 the command line is wrong, 130 interrupted.\n",
        "## wise\n\n" + _table(wise),
    ]
    parts += [_section(name, command) for name, command in wise.commands.items()]
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    arguments = " ".join(_metavar(param) for param in command.params if param.param_type_name == "argument")
    return f"## wise {name}\n\n`wise {name} {arguments} [OPTIONS]`\n\n{command.help}\n\n{_table(command)}"


def _table(command: Any) -> str:
    rows = "\n".join(_rows(command))
    return f"| | default | |\n| --- | --- | --- |\n{rows}\n"


def _rows(command: Any) -> Iterator[str]:
    for param in command.params:
        names = (
            f"`{_metavar(param)}`"
            if param.param_type_name == "argument"
            else ", ".join(f"`{name}`" for name in param.opts)
        )
        yield f"| {names} | {_default(param)} | {param.help} |"


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _default(param: Any) -> str:
    if param.required:
        return "required"
    return "" if param.default is None or param.default is False else f"`{param.default}`"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

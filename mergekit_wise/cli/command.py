"""A command of the terminal: registered by a sentence and a function, everything else from its declared options.

What needs the options is imported for the command that is run, so that ``wise --help`` does not wait for all of them.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from inspect import cleandoc
from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDEST = 100
"""Columns beyond which lines of prose are hard to read."""

DOCUMENTATION = "docs/commands.md"


def register(app: typer.Typer, name: str, function: Callable[..., None], *examples: str, table: str = "") -> None:
    """Register ``function(options, **flags)`` as a command.

    Args:
        app: the group that the command belongs to.
        name: the word that calls it.
        function: takes an object of the command's class of options, and by name what only a terminal has. Its
            docstring is what the help shows.
        examples: command lines for the end of the help.
        table: the name of its table in ``wise.toml``, if that is not its own name.
    """
    members = {"table": table or name, "function": staticmethod(function), "examples": examples}
    summary = cleandoc(function.__doc__ or "").replace("\n", " ")
    app.command(name, cls=type("Command", (Command,), members), help=summary)(lambda: None)


class Command(TyperCommand):
    """A command that takes from ``wise.toml`` what its command line does not give."""

    table: str
    function: Callable[..., None]
    examples: Sequence[str]
    _params: list[Any] | None

    @property
    def params(self) -> list[Any]:
        """What Typer parses the command line into; built for the command that is run, and for no other."""
        if self._params is None:
            from mergekit_wise.cli.parameters import typer_parameters

            self._params = typer_parameters(self.table)
        return self._params

    @params.setter
    def params(self, value: object) -> None:
        """Typer sets the parameters of the registered function, which has none."""
        self._params = None

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters with ``--help``; none of their values is converted."""
        return [*map(unconverted, super().get_params(ctx))]

    def invoke(self, ctx: Any) -> None:
        """Call the command's function. Raises UsageError as `read` does."""
        options, flags = self.read(ctx)
        from mergekit_wise.cli.progress import started

        with started(self.table.replace("-", " "), options):
            self.function(options, **flags)

    def read(self, ctx: Any) -> tuple[Any, dict[str, bool]]:
        """The command's options as an object, and the flags that only a terminal has.

        Raises UsageError if options are missing or wrong, or if ``wise.toml`` is.
        """
        from mergekit_wise.cli.parameters import read

        return read(self.table, ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as they are typed, and the options that are required."""
        from mergekit_wise.cli.parameters import usage

        return usage(self.table)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options in their groups."""
        from mergekit_wise.cli.parameters import help_of

        fit(formatter)
        for group, rows in help_of(self.table, formatter.width).items():
            with formatter.section(group):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples as they can be copied, and where to read more."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    parts = wrap(line, formatter.width - 6, break_long_words=False, break_on_hyphens=False)
                    formatter.write("  " + " \\\n    ".join(parts) + "\n")
        formatter.write(f"\nReference: {DOCUMENTATION}\n")


class Group(TyperGroup):
    """A group of commands, whose own options are flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters with ``--help``; none of their values is converted."""
        return [*map(unconverted, super().get_params(ctx))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Put long names on a line of their own, where it is narrow."""
        fit(formatter)
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List every command with its whole sentence; click would cut it at the end of the line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


def unconverted(parameter: Any) -> Any:
    """Let a parameter of Typer's leave its value as it was typed: classes of options convert their values themselves.

    Typer converts with pydantic from 0.29 on, even where nothing is given; importing it and making its validators takes
    longer than a small merge.
    """
    callback = parameter.callback
    parameter.process_value = lambda ctx, value: callback(ctx, parameter, value) if callback else value
    return parameter


def fit(formatter: Any) -> None:
    """Let a formatter put names that are longer than a third of the line on a separate line."""
    formatter.write_dl = partial(formatter.write_dl, col_max=max(10, formatter.width // 3))


def help_width() -> int:
    """Columns that help may fill; click would never go below 50, and terminals may."""
    return min(shutil.get_terminal_size().columns, WIDEST) - 2

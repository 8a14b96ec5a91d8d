"""A command from its declared options: what Typer parses, what the help shows, and what ``wise.toml`` adds.

Knows no command by name and not what a value means.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Parameter, Signature, cleandoc
from textwrap import wrap
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mergekit_wise import config
from mergekit_wise.declaration import Declared, OptionError, shown
from mergekit_wise.errors import UsageError
from mergekit_wise.options import ADVANCED, COMMANDS, GROUPS, options_of

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

    def parsed(**values: Any) -> None:
        """Never called: `Command.invoke` calls the command's own function."""

    parameters = [parameter for option in options_of(table or name).values() for parameter in _parameters(option)]
    parsed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    members = {"table": table or name, "function": staticmethod(function), "examples": examples}
    summary = cleandoc(function.__doc__ or "").replace("\n", " ")
    app.command(name, cls=type("Command", (Command,), members), help=summary)(parsed)


class Command(TyperCommand):
    """A command that takes from ``wise.toml`` what its command line does not give."""

    table: str
    function: Callable[..., None]
    examples: Sequence[str]

    def invoke(self, ctx: Any) -> None:
        """Call the command's function. Raises UsageError as `read` does."""
        options, flags = self.read(ctx)
        self.function(options, **flags)

    def read(self, ctx: Any) -> tuple[Any, dict[str, bool]]:
        """The command's options as an object, and the flags that only a terminal has.

        Raises UsageError if options are missing or wrong, or if the file is.
        """
        typed = {name: value for name, value in ctx.params.items() if value is not None and value not in ([], ())}
        settings: dict[str, tuple[str, Any]] = {}
        notes: list[str] = []
        if not ctx.find_root().params.get("no_config") and os.path.lexists(config.FILE):
            settings, notes = config.settings_of(
                self.table, _checked(config.read(), self.words), has_training_set="train" in typed
            )
        has_training_set = "train" in settings or not _is_typed(ctx, "data")
        typed, renamed = config.current_names(self.table, typed, has_training_set=has_training_set)
        typed = self._in_place(typed, settings)
        used = {name: entry for name, entry in settings.items() if name not in typed}
        _report_settings(used.values(), [*notes, *renamed])
        try:
            return self._made({**{name: value for name, (_, value) in used.items()}, **typed})
        except OptionError as error:
            if error.name not in used:
                raise
            key, value = used[error.name]
            raise UsageError(f"{config.FILE}: {key} = {shown(value)}: {error.reason}") from None

    @property
    def words(self) -> str:
        """The words that call the command."""
        return self.table.replace("-", " ")

    def _in_place(self, typed: Mapping[str, Any], settings: Mapping[str, object]) -> dict[str, Any]:
        """Typed arguments by name, where the file gives some: if it gives ZEROSHOT, a single word is FINETUNED."""
        names = [option.name for option in options_of(self.table).values() if option.option.is_argument]
        words = [typed[name] for name in names if name in typed]
        free = [name for name in names if name not in settings]
        if len(names) < 2 or len(words) in (0, len(names)) or len(free) == len(names):
            return dict(typed)
        if len(words) != len(free):
            listed = " and ".join(name.upper() for name in names)
            raise UsageError(
                f"{config.FILE} and the command line both give some of {listed}, and it is not clear which is which. "
                f"Give all of them on the command line{'' if free else ', or none'}."
            )
        others = {name: value for name, value in typed.items() if name not in names}
        return others | dict(zip(free, words, strict=True))

    def _made(self, given: Mapping[str, Any]) -> tuple[Any, dict[str, bool]]:
        make, only_here = COMMANDS[self.table]
        flags = {flag.name: bool(given.get(flag.name, flag.default)) for flag in only_here}
        declared = [option for option in options_of(self.table).values() if option.name not in flags]
        missing = [option for option in declared if option.required and option.name not in given]
        if missing:
            raise UsageError(_missing(self.words, self.table, missing))
        defaults = {o.name: o.option.cli_default for o in declared if o.option.cli_default is not None}
        values = {**defaults, **{name: value for name, value in given.items() if name not in flags}}
        return make(**values), flags

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as they are typed, and the options that are required."""
        pieces = []
        for option in options_of(self.table).values():
            if option.option.is_argument:
                pieces.append(_names(option) if option.required else f"[{_names(option)}]")
            elif option.required:
                pieces.append(f"{_flags(option)[0]} {option.metavar}")
        return [*pieces, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options in their groups."""
        fit(formatter)
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in ("Arguments", *GROUPS)}
        for option in options_of(self.table).values():
            group = "Arguments" if option.option.is_argument else option.option.group
            names, meaning = _names(option), _meaning(option)
            if len(names) > formatter.width - 4 and option.option.choices:
                names = f"{_flags(option)[-1]} CHOICE"
                meaning = f"{meaning}  One of {', '.join(option.option.choices)}."
            groups[group].append((names, meaning))
        groups[ADVANCED if groups[ADVANCED] else "Options"].append(("-h, --help", "Show this message."))
        for group, rows in groups.items():
            if rows:
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


def _is_typed(ctx: Any, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and bool(source.name == "COMMANDLINE")


def fit(formatter: Any) -> None:
    """Let a formatter put what is too long for a third of the line on a line of its own."""
    formatter.write_dl = partial(formatter.write_dl, col_max=max(10, formatter.width // 3))


def help_width() -> int:
    """Columns that help may fill; click would never go below 50, and terminals may."""
    return min(shutil.get_terminal_size().columns, WIDEST) - 2


def _parameters(option: Declared) -> Iterator[Parameter]:
    """What Typer parses an option from: texts, which the option's class converts."""
    kind: Any = list[str] if option.is_repeated else str
    kind = bool if option.is_flag else tuple[str, str] if option.is_pair else kind
    details: dict[str, Any] = {"help": option.option.help, "show_default": False, "autocompletion": _completion(option)}
    if option.option.is_argument:
        yield _parameter(option.name, kind, typer.Argument(metavar=_metavar(option), **details))
        return
    metavar = option.metavar or None
    names = [*([option.option.short] if option.option.short else []), f"--{option.key}"]
    names[-1] += f"/--no-{option.key}" if option.is_flag else ""
    envvar = option.option.envvar or None
    yield _parameter(option.name, kind, typer.Option(*names, metavar=metavar, envvar=envvar, **details))
    for alias in option.option.aliases:
        yield _parameter(alias.replace("-", "_"), kind, typer.Option(f"--{alias}", hidden=True, **details))


def _parameter(name: str, kind: Any, details: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, details])


def _completion(option: Declared) -> Callable[[str], list[str]] | None:
    """What a shell completes a value with; files where this gives nothing."""
    if not option.option.choices and not option.option.completes:
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if option.has_commas else ("", "", incomplete)
        return [before + comma + word for word in _values(option) if word.startswith(last)]

    return complete


def _values(option: Declared) -> Iterable[str]:
    if option.option.choices:
        return option.option.choices
    from mergekit_wise.datasets.catalog import ENTRIES, SUITES

    return [*(SUITES if option.option.completes == "suites" else ()), *ENTRIES]


def _metavar(option: Declared) -> str:
    return option.metavar + ("..." if option.is_repeated else "")


def _flags(option: Declared) -> list[str]:
    """How an option is written; of a flag that is on by default the form that switches it off."""
    name = f"--no-{option.key}" if option.is_flag and option.default else f"--{option.key}"
    return [*([option.option.short] if option.option.short else []), name]


def _names(option: Declared) -> str:
    if option.option.is_argument:
        return _metavar(option)
    return f"{', '.join(_flags(option))} {option.metavar}".rstrip()


def default_of(option: Declared) -> str:
    """What the help says of a default; nothing where there is none to speak of."""
    value = option.option.default or option.option.cli_default or option.default
    return "" if value is None or value is False or value is True or value == () else str(value)


def _meaning(option: Declared) -> str:
    """The help of an option with its default, or that it is required."""
    default = default_of(option)
    extra = "required" if option.required else f"default: {default}" if default else ""
    return f"{option.option.help}{f'  [{extra}]' if extra else ''}"


def _missing(words: str, table: str, missing: Sequence[Declared]) -> str:
    """Which options a command needs, and how to give them once for all."""
    names = [_metavar(o) if o.option.is_argument else f"{_flags(o)[-1]} {o.metavar}" for o in missing]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    shared = [f'  {option.key} = "..."' for option in missing if option.option.is_argument]
    own = [f'  {option.key} = "..."' for option in missing if not option.option.is_argument]
    lines = [*shared, *([f"  [{table}]", *own] if own else [])]
    return (
        f"wise {words} needs {listed}. Give {'it' if len(names) == 1 else 'them'} on the command line, or in "
        f"{config.FILE} ('wise init' writes one):\n" + "\n".join(lines)
    )


def _checked(content: dict[str, Any], words: str) -> dict[str, Any]:
    """The content of the file. Raises UsageError that lists all that is wrong with it."""
    found = list(config.faults(content))
    if found:
        text = f"{config.FILE}: {found[0]}"
        if len(found) > 1:
            text = f"{config.FILE} cannot be used:" + "".join(f"\n  {line}" for line in found)
        raise UsageError(f"{text}\nFix it, or run 'wise --no-config {words} ...'.")
    return content


def _report_settings(used: Iterable[tuple[str, Any]], notes: Sequence[str]) -> None:
    """Print what came from the file; of several processes of one run, the first does."""
    lines = ", ".join(f"{key} = {shown(value)}" for key, value in used)
    if (lines or notes) and os.environ.get("RANK", "0") == "0":
        from mergekit_wise.cli.console import notes as show_notes
        from mergekit_wise.cli.console import say

        show_notes(tuple(notes))
        if lines:
            say(f"From {config.FILE}: {lines}")

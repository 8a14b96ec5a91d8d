"""Typer's parameters of a command, its help, and what ``wise.toml`` adds: all from the declared options.

Knows one command by name, and not what a value means. Imported for the command that is run.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from mergekit_wise import config, launcher
from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import Declared, OptionError, as_written
from mergekit_wise.options import COMMANDS, GROUPS, options_of

EXAMINES_FILE = "doctor"
"""The table of the command that says itself what is wrong with the file, and so runs without it."""


def read(table: str, ctx: Any) -> tuple[Any, dict[str, bool]]:
    """The command's options as an object, and the flags that only a terminal has.

    Raises UsageError if options are missing or wrong, or if the file is.
    """
    typed = {name: value for name, value in ctx.params.items() if value is not None and value not in ([], ())}
    settings: dict[str, tuple[str, Any]] = {}
    notes: list[str] = []
    if not ctx.find_root().params.get("no_config") and os.path.lexists(config.FILE):
        try:
            content = _checked(config.read(), _words(table))
        except UsageError:
            if table != EXAMINES_FILE:
                raise
            content = {}
        settings, notes = config.settings_of(table, content, has_training_set="train" in typed)
    has_training_set = "train" in settings or not _is_typed(ctx, "data")
    typed, renamed = config.current_names(table, typed, has_training_set=has_training_set)
    settings = _without_alternatives(table, typed, settings)
    typed = _in_place(table, typed, settings)
    used = {name: entry for name, entry in settings.items() if name not in typed}
    _report_settings(used.values(), [*notes, *renamed, *filter(None, [launcher.note()])])
    try:
        return _made(table, {**{name: value for name, (_, value) in used.items()}, **typed})
    except OptionError as error:
        if error.name not in used:
            raise
        key, value = used[error.name]
        raise UsageError(f"{config.FILE}: {key} = {as_written(value)}: {error.reason}") from None


def _without_alternatives(table: str, typed: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The file's settings without what something typed is given in place of."""
    replaced = {option.name: option.option.replaces for option in options_of(table).values() if option.option.replaces}
    left_out = {argument for name, argument in replaced.items() if name in typed}
    left_out |= {name for name, argument in replaced.items() if argument in typed and name not in typed}
    return {name: entry for name, entry in settings.items() if name not in left_out}


def _in_place(table: str, typed: Mapping[str, Any], settings: Mapping[str, object]) -> dict[str, Any]:
    """Typed arguments by name, where the file gives some: if it gives ZEROSHOT, a single word is FINETUNED."""
    every = options_of(table).values()
    replaced = {option.option.replaces for option in every if option.name in {*typed, *settings}}
    names = [option.name for option in every if option.option.is_argument and option.name not in replaced]
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


def _made(table: str, given: Mapping[str, Any]) -> tuple[Any, dict[str, bool]]:
    make, only_here = COMMANDS[table]
    flags = {flag.name: bool(given.get(flag.name, flag.default)) for flag in only_here}
    declared = [option for option in options_of(table).values() if option.name not in flags]
    missing = [option for option in declared if _is_missing(option, _alternatives(declared, option), given)]
    if missing:
        raise UsageError(_missing(table, missing))
    defaults = {o.name: o.option.cli_default for o in declared if o.option.cli_default is not None}
    values = {**defaults, **{name: value for name, value in given.items() if name not in flags}}
    return make(**values), flags


def _alternatives(declared: Sequence[Declared], option: Declared) -> list[Declared]:
    """The options that are given in place of another one."""
    return [other for other in declared if other.option.replaces == option.name]


def _is_missing(option: Declared, alternatives: Sequence[Declared], given: Mapping[str, Any]) -> bool:
    if option.name in given:
        return False
    return option.is_required or (bool(alternatives) and not any(other.name in given for other in alternatives))


def _is_typed(ctx: Any, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and bool(source.name == "COMMANDLINE")


def _words(table: str) -> str:
    """The words that call the command of a table."""
    return table.replace("-", " ")


def usage(table: str) -> list[str]:
    """Arguments as they are typed, and the options that are required."""
    pieces = []
    for option in options_of(table).values():
        if option.option.is_argument:
            pieces.append(_names(option) if option.is_required else f"[{_names(option)}]")
        elif option.is_required:
            pieces.append(f"{_flags(option)[0]} {option.metavar}")
    return [*pieces, "[OPTIONS]"]


def help_of(table: str, width: int) -> dict[str, list[tuple[str, str]]]:
    """Names and meanings of all options by the headings of their groups, for a help of this width."""
    groups: dict[str, list[tuple[str, str]]] = {group: [] for group in ("Arguments", *GROUPS)}
    for option in options_of(table).values():
        group = "Arguments" if option.option.is_argument else option.option.group
        names, meaning = _names(option), _meaning(option)
        if len(names) > width - 4 and option.option.choices:
            names = f"{_flags(option)[-1]} CHOICE"
            meaning = f"{meaning}  One of {', '.join(option.option.choices)}."
        groups[group].append((names, meaning))
    last = next((group for group in reversed(GROUPS) if groups[group]), "Options")
    groups[last].append(("-h, --help", "Show this message."))
    return {group: rows for group, rows in groups.items() if rows}


def typer_parameters(table: str) -> list[Any]:
    """Typer's parameters for the options of a command, made by Typer from the signature of a function."""

    def parsed(**values: Any) -> None:
        """Never called: `Command.invoke` calls the command's own function."""

    parameters = [parameter for option in options_of(table).values() for parameter in _parameters(option)]
    parsed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(parsed)
    return list(typer.main.get_command(app).params)


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
    from mergekit_wise.datasets.catalog import BUILT_IN, SUITES
    from mergekit_wise.datasets.plugins import names_of_points

    return [*(SUITES if option.option.completes == "suites" else ()), *BUILT_IN, *names_of_points()]


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
    """The default as the help shows it; empty if there is none."""
    value = option.option.default or option.option.cli_default or option.default
    return "" if value is None or value is False or value is True or value == () else str(value)


def _meaning(option: Declared) -> str:
    """The help of an option with its default, or that it is required."""
    default = default_of(option)
    extra = "required" if option.is_required else f"default: {default}" if default else ""
    return f"{option.option.help}{f'  [{extra}]' if extra else ''}"


def _as_typed(option: Declared) -> str:
    """How an option is typed, its value included."""
    return _metavar(option) if option.option.is_argument else f"{_flags(option)[-1]} {option.metavar}"


def _missing(table: str, missing: Sequence[Declared]) -> str:
    """Which options a command needs, and how to give them once for all."""
    every = list(options_of(table).values())
    names = [" or ".join(map(_as_typed, (option, *_alternatives(every, option)))) for option in missing]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    shared = [f'  {option.key} = "..."' for option in missing if option.option.is_argument]
    own = [f'  {option.key} = "..."' for option in missing if not option.option.is_argument]
    lines = [*shared, *([f"  [{table}]", *own] if own else [])]
    return (
        f"wise {_words(table)} needs {listed}. Give {'it' if len(names) == 1 else 'them'} on the command line, or in "
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
    lines = ", ".join(f"{key} = {as_written(value)}" for key, value in used)
    if (lines or notes) and launcher.rank() == 0:
        from mergekit_wise.cli.console import notes as show_notes
        from mergekit_wise.cli.console import say

        show_notes(tuple(notes))
        if lines:
            say(f"From {config.FILE}: {lines}")

"""``wise.toml``: arguments and options written down once, for every command that is run in its folder.

Knows how commands take options, but no command by name, and not what a value means.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mergekit_wise import launcher
from mergekit_wise.cli.config_file import FILE, as_typed, faults, is_flag, keys, plain, read
from mergekit_wise.cli.layout import fit
from mergekit_wise.errors import UsageError


class App(typer.Typer):
    """A Typer whose commands read ``wise.toml``."""

    def command(
        self, name: str | None = None, *, unshared: Iterable[str] = (), beyond: Iterable[str] = (), **settings: Any
    ) -> Callable[[Any], Any]:
        """Register a command, as ``typer.Typer.command`` does.

        Args:
            name: what calls it.
            unshared: options that mean something else than a shared key of that name; only the table gives them.
            beyond: keys of its table that are no options; the command reads them itself.
            settings: of ``typer.Typer.command``.
        """
        members = {"unshared": frozenset(unshared), "beyond": frozenset(beyond)}
        return super().command(name, cls=type("Command", (Command,), members), **settings)


class Command(TyperCommand):
    """A command that takes from ``wise.toml`` what its command line does not give."""

    unshared: frozenset[str] = frozenset()
    beyond: frozenset[str] = frozenset()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As plain text; see ``layout``."""
        fit(formatter)
        super().format_help(ctx, formatter)

    def make_parser(self, ctx: Any) -> Any:
        """Also understands ``--no-FLAG``, as what the file switches on must be possible to switch off."""
        parser = super().make_parser(ctx)
        known = {name for param in self.params for name in (*param.opts, *param.secondary_opts)}
        for key, param in keys(self).items():
            negative = f"--no-{key}"
            if is_flag(param) and not param.secondary_opts and negative not in known:
                parser.add_option(obj=param, opts=[negative], dest=param.name, action="store_const", const=False)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line on top of the file; what came from the file is printed.

        Raises:
            UsageError: the file, or a value of it, makes no sense.
        """
        root = ctx.find_root()
        asks_for_help = any(word in ctx.help_option_names for word in args)
        if ctx.resilient_parsing or asks_for_help or root.params.get("no_config"):
            return super().parse_args(ctx, args)
        settings = _settings_of(self, root.command)
        params = keys(self)
        ctx.default_map = {params[key].name: as_typed(params[key], value) for key, value in settings.items()}
        typed = self.make_parser(ctx).parse_args(args=list(args))[0]
        before = _leading(self.params, ctx.default_map, typed)
        try:
            rest = super().parse_args(ctx, [*before.values(), *args])
        except typer.BadParameter as error:
            raise _explained(error, params, settings, typed) from None
        used = (key for key in settings if params[key].name in before or _from_file(ctx, params[key]))
        _tell({key: settings[key] for key in used})
        return rest


def _settings_of(command: Command, root: TyperGroup) -> dict[str, Any]:
    """What the file says to one command: its table, and the shared keys that it knows."""
    said = read()
    if not said:
        return {}
    commands = dict(_commands(root))
    tables = {name: {**keys(other), **dict.fromkeys(other.beyond)} for name, other in commands.items()}
    shared = {name: _shared(other) for name, other in commands.items()}
    if found := list(faults(said, tables, shared)):
        several = f"{FILE} cannot be used:" + "".join(f"\n  {line}" for line in found)
        raise UsageError(several if len(found) > 1 else f"{FILE}: {found[0]}")
    name = next(name for name, other in commands.items() if other is command)
    # A shared key may have the name of a command: zeroshot = "FILE".
    table = said[name] if isinstance(said.get(name), dict) else {}
    own = {key: value for key, value in table.items() if key not in command.beyond}
    return {key: value for key, value in said.items() if key in shared[name] and not isinstance(value, dict)} | own


def _shared(command: Command) -> dict[str, Any]:
    return {key: param for key, param in keys(command).items() if key not in command.unshared}


def _commands(group: TyperGroup, path: str = "") -> Iterator[tuple[str, Command]]:
    """Commands by the names of their tables; a command of a group within is GROUP-COMMAND."""
    for name, command in group.commands.items():
        if isinstance(command, Command):
            yield path + name, command
        elif isinstance(command, TyperGroup):
            yield from _commands(command, f"{path}{name}-")


def _leading(params: list[Any], given: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of the file that stand before the ones on the command line.

    Where the file gives ZEROSHOT, a single word on the command line is FINETUNED.
    """
    arguments = [param for param in params if param.param_type_name == "argument"]
    words = [param for param in arguments if typed.get(param.name) is not None]
    missing = [param for param in arguments if param.name not in given]
    fixed = all(param.required and param.nargs == 1 for param in arguments)
    if not fixed or len(words) in (0, len(arguments)) or len(missing) == len(arguments):
        return {}
    if len(words) != len(missing):
        names = " and ".join(param.metavar or param.name.upper() for param in arguments)
        raise UsageError(
            f"{FILE} and the command line both give some of {names}, and which word means which cannot be told. "
            f"Give all of them on the command line{'' if missing else ', or none'}."
        )
    return {p.name: given[p.name] for p in takewhile(lambda param: param.name in given, arguments)}


def _from_file(ctx: Any, param: Any) -> bool:
    return bool(ctx.get_parameter_source(param.name).name == "DEFAULT_MAP")


def _explained(
    error: typer.BadParameter, params: Mapping[str, Any], settings: Mapping[str, Any], typed: Mapping[str, Any]
) -> Exception:
    """The same error, which also says what was found, and where if that was in the file."""
    param = error.param
    if param is None or not error.message:
        return error
    reason = error.message.rstrip(".")
    if error.ctx is not None and _from_file(error.ctx, param):
        key = next(key for key, other in params.items() if other is param and key in settings)
        return UsageError(f"{FILE}: {key} = {plain(settings[key])} cannot be used. {reason}.")
    found = repr(typed.get(param.name))
    if isinstance(typed.get(param.name), str) and not reason.startswith(found):
        error.message = f"{found}. {reason}."
    return error


def _tell(used: Mapping[str, Any]) -> None:
    """Print what came from the file; of several processes of one run, the first does."""
    if used and launcher.rank() == 0:
        from mergekit_wise.cli.console import say

        say(f"From {FILE}: {', '.join(f'{key} = {plain(value)}' for key, value in used.items())}")

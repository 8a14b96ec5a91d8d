"""What ``wise.toml`` says, and what is wrong with it.

Knows what form an option's value has, but no command by name, and not what a value means.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from mergekit_wise.errors import UsageError

FILE = "wise.toml"


def read(path: str = FILE) -> dict[str, Any]:
    """The file as TOML reads it; nothing if there is none.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Mend it, or use 'wise --no-config ...'.") from None
    import tomllib

    try:
        # Some editors begin a file with a mark of UTF-8.
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}. Mend it, or use 'wise --no-config ...'.") from None


def keys(command: TyperCommand) -> dict[str, Any]:
    """What may stand in the table of a command: its long options and its arguments, and click's object for each."""
    found = {}
    for param in command.params:
        if param.param_type_name == "argument":
            shown = (param.metavar or param.name).lower().replace("_", "-")
            found[shown if shown.replace("-", "").isalnum() else param.name.replace("_", "-")] = param
        else:
            found |= {name[2:]: param for name in param.opts if name.startswith("--")}
    return found


Known = Mapping[str, Mapping[str, Any]]
"""Of every command, by the name of its table: keys, and click's object for each, or None where any value will do."""


def faults(settings: Mapping[str, Any], tables: Known, shared: Known) -> Iterator[str]:
    """All that is wrong with a file, a sentence each: no such table, no such key, a value of the wrong form.

    Args:
        settings: what ``read`` gave.
        tables: the keys that may stand in the tables of commands.
        shared: those that may stand above the tables.
    """
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _faults_of_table(key, value, tables)
            continue
        takers = {name: params[key] for name, params in shared.items() if key in params}
        if not takers:
            everything = [key for params in shared.values() for key in params]
            yield f"no command has an option '{plain(key)}'" + (_guess(key, everything, "'{}'") or ".")
        yield from (f"{key} (of {name}): {fault}" for name, p in takers.items() if (fault := _misfit(p, value)))


def _faults_of_table(name: str, table: Mapping[str, Any], tables: Known) -> Iterator[str]:
    if name not in tables:
        yield f"[{plain(name)}] is no command" + (_guess(name, tables, "[{}]") or ".")
        return
    for key, value in table.items():
        if key not in tables[name]:
            owners = ", ".join(f"[{other}]" for other, params in tables.items() if key in params)
            hint = _guess(key, tables[name], "'{}'") or (f"; it belongs into {owners}." if owners else ".")
            yield f"[{name}] has no option '{plain(key)}'{hint}"
        elif fault := _misfit(tables[name][key], value):
            yield f"[{name}] {key}: {fault}"


def _guess(word: str, known: Iterable[str], form: str) -> str:
    close = get_close_matches(word.replace("_", "-").lower(), known, n=1)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def _misfit(param: Any, value: Any) -> str:
    """What is wrong with the form of a value; what it may be is checked as on the command line."""
    if param is None:
        return ""
    if is_flag(param):
        return "" if isinstance(value, bool) else f"expected true or false, found {plain(value)}."
    if param.nargs > 1 and not param.multiple:
        good = isinstance(value, list) and len(value) == param.nargs and all(map(_is_scalar, value))
        return "" if good else f"expected an array of {param.nargs} values, found {plain(value)}."
    if param.multiple or param.nargs == -1:
        good = all(map(_is_scalar, value if isinstance(value, list) else [value]))
        return "" if good else f"expected a text or an array of texts, found {plain(value)}."
    return "" if _is_scalar(value) else f"expected a number or a text in quotes, found {plain(value)}."


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def is_flag(param: Any) -> bool:
    """Whether an option takes no value."""
    return param.param_type_name == "option" and bool(param.is_flag)


def as_typed(param: Any, value: Any) -> Any:
    """A value as the command line would hold it, so that it is understood in the same way."""
    if isinstance(value, list):
        return tuple(as_typed(None, entry) for entry in value)
    if param is not None and (param.multiple or param.nargs == -1):
        return (as_typed(None, value),)
    if isinstance(value, bool):
        return value
    # What the shell does to a word.
    return os.path.expanduser(value) if isinstance(value, str) else str(value)


def plain(value: Any) -> str:
    """A value of the file for people."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    text = str(value)
    return text if text.isprintable() else repr(text)

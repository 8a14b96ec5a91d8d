"""TOML files that hold options: ``wise.toml``, which every command reads in its folder, and recipes.

Knows what options there are and checks values as the command line does; does nothing with them.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import Declared, OptionError, as_written
from mergekit_wise.options import COMMANDS, options_of
from mergekit_wise.wording import did_you_mean

T = TypeVar("T")

FILE = "wise.toml"

OWN_KEYS: Mapping[str, Collection[str]] = {"recipe": ("folder",)}
"""Keys of a command's table that are no options; the command reads them itself."""


def read(path: str | Path = FILE) -> dict[str, Any]:
    """The file as TOML reads it. Raises UsageError if it cannot be read."""
    import tomllib  # not for a command line without a file

    try:
        # Some editors begin a file with a byte-order mark.
        found = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from None
    if any("\0" in text for text in _texts(found)):
        raise UsageError(f"{path} holds a text with the character \\u0000, which no name or path has.")
    return found


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for entry in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(entry)


def keys(command: str) -> dict[str, Declared]:
    """The options of a command by every key that means one of them; aliases and negated flags included."""
    found: dict[str, Declared] = {}
    for option in options_of(command).values():
        if option.is_flag:
            found[f"no-{option.key}"] = option
        for key in (*option.option.aliases, option.key):
            found[key] = option
    return found


def faults(settings: Mapping[str, Any]) -> Iterator[str]:
    """All that is wrong with a file, a sentence each: unknown tables and keys, values that an option cannot have."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _faults_of_table(key, value)
            continue
        takers = [keys(command)[_key(key)] for command in COMMANDS if _key(key) in keys(command)]
        if not takers:
            everything = [name for command in COMMANDS for name in _proper_keys(command)]
            yield f"no command has an option '{as_written(key)}'.{_suggestion(key, everything)}"
        wrong = [fault for option in takers if (fault := _fault(option, key, value))]
        yield from wrong[:1] if len(wrong) == len(takers) else ()  # what only some refuse is checked by the command


def _faults_of_table(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    if name not in COMMANDS:
        tables = [f"[{command}]" for command in COMMANDS]
        yield f"[{as_written(name)}] is no command.{did_you_mean(f'[{name}]', tables, most=1)}"
        return
    known = keys(name)
    for key, value in table.items():
        if key in OWN_KEYS.get(name, ()):
            continue
        if _key(key) in known:
            fault = _fault(known[_key(key)], key, value)
            yield from [f"[{name}] {fault}"] if fault else []
            continue
        owners = [f"[{other}]" for other in COMMANDS if _key(key) in {*keys(other), *OWN_KEYS.get(other, ())}]
        suggestion = _suggestion(key, _proper_keys(name)) or (f" It belongs in {', '.join(owners)}." if owners else "")
        yield f"[{name}] has no option '{as_written(key)}'.{suggestion}"


def _fault(option: Declared, key: str, value: Any) -> str:
    try:
        option.convert(as_typed(value))
    except OptionError as error:
        return f"{as_written(key)} = {as_written(value)}: {error.reason}"
    return ""


def settings_of(
    command: str, settings: Mapping[str, Any], *, has_training_set: bool = False
) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """What a file gives to a command, by the names of fields: the key as written, and the value; and notes on it.

    The command's table wins over the keys above all tables, which are for every command that has them. Of these, a list
    of one value is that value to a command whose option takes no list. For `has_training_set` see `current_names`.
    """
    known = keys(command)
    shared = {
        key: _single(known[_key(key)], key, value) if _key(key) in known else value
        for key, value in settings.items()
        if not isinstance(value, dict)
    }
    # A shared key may have the name of a command: zeroshot = "FILE".
    table = settings[command] if isinstance(settings.get(command), dict) else {}
    found: dict[str, tuple[str, Any]] = {}
    notes: list[str] = []
    for source in (shared, table):
        named, renamed = current_names(
            command, _by_name(command, source), has_training_set=has_training_set or source is shared
        )
        found |= named
        notes += renamed if source is table else []
    return found, notes


def _single(option: Declared, key: str, value: Any) -> Any:
    """The value, or the only entry of a list that the option does not take."""
    is_one = isinstance(value, list) and len(value) == 1 and _fault(option, key, value)
    return value[0] if is_one and not _fault(option, key, value[0]) else value


def _by_name(command: str, source: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Keys and values by the names of fields or aliases; what is none of the command's options is left out."""
    known, found = keys(command), {}
    for key, value in source.items():
        option = known.get(_key(key))
        if option is not None and key not in OWN_KEYS.get(command, ()):
            is_alias = _key(key) in option.option.aliases
            negated = option.is_flag and _key(key) == f"no-{option.key}"
            name = _key(key).replace("-", "_") if is_alias else option.name
            found[name] = (key, not value if negated else as_typed(value))
    return found


def current_names(command: str, values: Mapping[str, T], *, has_training_set: bool) -> tuple[dict[str, T], list[str]]:
    """Values by the names of fields, where some may be under former names, and a note for each option that was.

    Args:
        command: whose options they are.
        values: anything, by the name of a field or of an alias.
        has_training_set: whether ``data`` without ``train`` means the root folder of the data sets, because the
            training data is given elsewhere or ``data`` is given for all commands.
    """
    found, notes = dict(values), []
    if command == "finetune" and "data" in found and "train" not in found and not has_training_set:
        found["train"] = found.pop("data")
        notes.append(
            "finetune: --data now names the root folder of the data sets. It is read here as --train, which names the "
            "training data."
        )
    for option in options_of(command).values():
        for alias in option.option.aliases:
            former = alias.replace("-", "_")
            if former in found:
                found.setdefault(option.name, found[former])
                del found[former]
                if not option.option.is_argument:
                    notes.append(f"{command}: --{alias} is now called --{option.key}.")
    return found, notes


def as_typed(value: Any) -> Any:
    """A value with what a shell does to a word: ``~`` at its beginning is the home folder."""
    if isinstance(value, list):
        return [as_typed(entry) for entry in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _proper_keys(command: str) -> list[str]:
    return [option.key for option in options_of(command).values()]


def _key(key: str) -> str:
    return key.replace("_", "-")


def _suggestion(key: str, known: Iterable[str]) -> str:
    return did_you_mean(_key(key).lower(), known, most=1)

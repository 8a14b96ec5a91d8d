"""The merge that makes a mixture of a sweep: its options, the line to type, and its rules as a record holds them.

Imports no torch.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mergekit_wise.merging import Rules
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.option_types import Declared, ModelInMemory, Options, declared_options
from mergekit_wise.options import RULES, MergeOptions, SweepOptions

_AS_FIRST = {"like": "zs"}
"""Values that mean the same as none."""

_FOR_IMAGES = ("data", "max_bad", "max_pixels", "device")
"""Options that change a merged file only by the images of --recalibrate."""

_UNNEEDED = ("mmap", "memory", "progress")
"""Options that change no byte of what is written."""


def merge_options(options: SweepOptions, rules: Rules, output: str | Path) -> MergeOptions:
    """The options of the merge that writes a mixture of a sweep, with all its rules."""
    shared = {name: getattr(options, name) for name in _fields() & declared_options(SweepOptions).keys()}
    values = {**shared, "progress": options.progress, **_as_fields(rules), "output": output}
    return MergeOptions(**values)


def merge_command(options: MergeOptions) -> str:
    """The line of ``wise merge`` with these options, to copy into a shell; of Python for models in memory."""
    unneeded = {*_UNNEEDED, *(() if options.recalibrate else _FOR_IMAGES)}
    if any(isinstance(source, ModelInMemory) for source in (options.zeroshot, options.finetuned)):
        return _call(options, unneeded)
    return command_line("merge", options, without=unneeded, always=("alpha",))


def _call(options: MergeOptions, unneeded: Collection[str]) -> str:
    """The call of `merge`, where models in memory are called as the arguments are."""
    sources = [
        name if isinstance(source := getattr(options, name), ModelInMemory) else repr(str(source))
        for name in ("zeroshot", "finetuned")
    ]
    given = [
        f"{name}={value!r}"
        for name, option in _declared(options).items()
        if not option.option.is_argument and name not in {*unneeded, "output"}
        if (value := getattr(options, name)) not in (option.default, _AS_FIRST.get(name), ()) or name == "alpha"
    ]
    return f"mergekit_wise.merge({', '.join((*sources, *given))})"


def rule_text(options: MergeOptions) -> str:
    """The rules besides the alpha of all tensors, as options of ``wise merge``; empty if there are none."""
    rules = {name for name, option in declared_options(MergeOptions).items() if option.option.group == RULES}
    return shlex.join(_words(options, (rules | {"dtype", "recalibrate"}) - {"alpha"}))


def command_line(command: str, options: Options, *, without: Collection[str] = (), always: Collection[str] = ()) -> str:
    """The line of a command with those options that are not the defaults, and those that are `always` given."""
    every = _declared(options)
    given = [name for name, option in every.items() if option.option.is_argument]
    arguments = [str(getattr(options, name)) for name in given]
    return shlex.join(["wise", command, *arguments, *_words(options, every.keys() - {*given, *without}, always)])


def _declared(options: Options) -> Mapping[str, Declared]:
    kind: Any = type(options)
    return declared_options(kind)


def _fields() -> set[str]:
    return set(declared_options(MergeOptions)) | {"progress"}


def _as_fields(rules: Rules) -> dict[str, Any]:
    """Rules as the values of a merge's options, with every number in full."""
    return {
        "alpha": rules.alpha,
        "alpha_for": tuple(f"{pattern}={alpha!r}" for pattern, alpha in rules.alpha_for),
        "depth_alpha": f"{rules.depth[0]!r}:{rules.depth[1]!r}" if rules.depth else None,
        "keep": tuple(f"{KEYS[side]}:{pattern}" for side, pattern in rules.keep),
        "only": rules.only,
        "dtype": rules.dtype.torch if rules.dtype else None,
        "extrapolate": rules.extrapolate,
        "frozen_tolerance": rules.frozen_tolerance,
    }


def _words(options: Options, names: Collection[str], always: Collection[str] = ()) -> list[str]:
    """The words of the options with these names, in the order of their declaration."""
    found: list[str] = []
    for name, option in _declared(options).items():
        value = getattr(options, name)
        same = value in (option.default, _AS_FIRST.get(name), ())
        if name in names and (name in always or not same):
            found += _option(option, value)
    return found


def _option(option: Declared, value: Any) -> Iterator[str]:
    flag = f"-{option.option.short[-1]}" if option.option.short else option.flag
    if option.is_flag:
        yield option.flag if value else f"--no-{option.key}"
    elif option.is_pair:
        yield from (flag, *map(str, value))
    elif option.is_repeated and not option.has_commas:
        for each in value:
            yield from (flag, str(each))
    else:
        text = "FILE" if isinstance(value, tuple) else repr(value) if isinstance(value, float) else str(value)
        yield from (flag, text)

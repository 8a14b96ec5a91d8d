"""The merge that makes a mixture of a sweep, or that a file records: its options, the line to type, its rules as text.

Imports no torch.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mergekit_wise.errors import CheckpointError, WiseError
from mergekit_wise.merging import Rules, read_naming, read_rules
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.option_types import Declared, ModelInMemory, Options, Sources, declared_options
from mergekit_wise.options import RULES, MergeOptions, SweepOptions
from mergekit_wise.results.choices import MAX_LINE
from mergekit_wise.results.measurement import as_text

_AS_FIRST = {"like": "zs"}
"""Values that mean the same as none."""


_FOR_IMAGES = ("data", "max_bad", "max_pixels", "device")
"""Options that change a merged file only by the images of --recalibrate."""

_IDENTITY = ("name", "repository", "revision", "header_sha256")
"""What tells a source in a provenance from others."""

_UNNEEDED = ("mmap", "memory", "progress")
"""Options that change no byte of what is written."""


def merge_options(options: SweepOptions, rules: Rules, output: str | Path | None) -> MergeOptions:
    """The options of the merge that writes a mixture of a sweep, with all its rules; without an output, in memory."""
    shared = {name: getattr(options, name) for name in _fields() & declared_options(SweepOptions).keys()}
    values = {**shared, "progress": options.progress, **_as_fields(rules), "output": output}
    return MergeOptions(**values)


def merge_command(options: MergeOptions) -> str:
    """The line of ``wise merge`` with these options, to copy into a shell; of Python for models in memory."""
    unneeded = {*_UNNEEDED, *(() if options.recalibrate else _FOR_IMAGES)}
    sources = (options.zeroshot, options.finetuned, *options.soup, options.base, *(options.fisher or ()))
    if any(isinstance(source, ModelInMemory) for source in sources):
        return _call(options, unneeded)
    return command_line("merge", options, without=unneeded, always=("alpha",))


def _call(options: MergeOptions, unneeded: Collection[str]) -> str:
    """The call of `merge`, where models in memory are called as the arguments are."""
    names = ("zeroshot",) if options.soup else ("zeroshot", "finetuned")
    sources = [
        name if isinstance(source := getattr(options, name), ModelInMemory) else repr(str(source)) for name in names
    ]
    given = [
        f"{name}={_in_python(name, value)}"
        for name, option in _declared(options).items()
        if not option.option.is_argument and name not in {*unneeded, "output", "soup"}
        if (value := getattr(options, name)) not in (option.default, _AS_FIRST.get(name), ()) or name == "alpha"
    ]
    members = [f"soup={_in_python('soup', options.soup)}"] if options.soup else []
    return f"mergekit_wise.merge({', '.join((*sources, *members, *given))})"


def _in_python(name: str, value: Any) -> str:
    """A value as Python has it; the name of the argument where it is, or holds, a model in memory."""
    if any(isinstance(each, ModelInMemory) for each in (value if isinstance(value, tuple) else (value,))):
        return name
    return repr(str(value) if isinstance(value, Path) else value)


def recorded_command(origin: Mapping[str, Any], output: str) -> str:
    """The line of ``wise merge`` that a provenance records, with the names of files that it holds.

    Members of a soup that was chosen greedily are averaged as they were chosen.

    Raises CheckpointError if the provenance cannot be understood.
    """
    return merge_command(_recorded_merge(origin, output))


def verify_command(origin: Mapping[str, Any], merged: str) -> str:
    """The line of ``wise verify`` for a merged file, with the names of files that its provenance holds."""
    made = _recorded_merge(origin, merged)
    members = ["--soup", ",".join(map(str, made.soup))]
    sources = ["--zeroshot", str(made.zeroshot), *(members if made.soup else ["--finetuned", str(made.finetuned)])]
    base = ["--base", str(made.base)] if made.base is not None else []
    fisher = ["--fisher", *map(str, made.fisher)] if made.fisher is not None else []
    return shlex.join(["wise", "verify", merged, *sources, *base, *fisher])


def _recorded_merge(origin: Mapping[str, Any], output: str) -> MergeOptions:
    """The options of that merge."""
    rules, naming = read_rules(origin), read_naming(origin)
    alphas = (rules.alpha, *(alpha for _, alpha in rules.alpha_for), *(rules.depth or ()))
    zeroshot, members = _name(origin, "zeroshot"), _members(origin)
    finetuned = None if members else _name(origin, "finetuned")
    fisher = _entry(origin, "fisher")
    recalibrated = _entry(origin, "recalibrated")
    try:
        return MergeOptions(
            zeroshot,
            finetuned,
            f"merged-{output}" if output in (zeroshot, finetuned, *members) else output,
            **{
                **_as_fields(rules),
                "soup": members,
                "how": "stock" if _entry(origin, "finetuned").get("how") == "stock" else "uniform",
                "extrapolate": not all(0 <= alpha <= 1 for alpha in alphas),
                "like": KEYS[naming.like],
                "rename": tuple(map(str, naming.rename)),
                "base": _base(origin),
                "fisher": (_name(fisher, "zeroshot"), _name(fisher, "finetuned")) if fisher else None,
                "fisher_floor": fisher.get("floor", 1e-8),
                "recalibrate": as_text(recalibrated.get("dataset") or "DATASET") if recalibrated else None,
            },
        )
    except WiseError as error:
        raise CheckpointError(f"the provenance of the file cannot be understood: {error}") from error


def _members(origin: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a soup's members, in folders of their own if they are alike; none for a single checkpoint."""
    members = _entry(origin, "finetuned").get("members")
    found = [each for each in members if isinstance(each, Mapping)] if isinstance(members, list) else []
    names = [_own_name(each, f"member-{number}") for number, each in enumerate(found, 1)]
    alike = len(set(names)) < len(names)
    return tuple(f"member-{number}/{name}" if alike else name for number, name in enumerate(names, 1))


def rule_text(options: MergeOptions) -> str:
    """The rules besides the alpha of all tensors, as options of ``wise merge``; empty if there are none."""
    rules = {name for name, option in declared_options(MergeOptions).items() if option.option.group == RULES}
    sources = {"alpha", "soup", "how", "allow_other_starts"}
    return shlex.join(_words(options, (rules | {"dtype", "recalibrate"}) - sources))


def command_line(command: str, options: Options, *, without: Collection[str] = (), always: Collection[str] = ()) -> str:
    """The line of a command with those options that are not the defaults, and those that are `always` given."""
    every = _declared(options)
    replaced = {
        option.option.replaces for name, option in every.items() if option.option.replaces and getattr(options, name)
    }
    given = [name for name, option in every.items() if option.option.is_argument]
    arguments = [str(getattr(options, name)) for name in given if name not in replaced]
    return shlex.join(["wise", command, *arguments, *_words(options, every.keys() - {*given, *without}, always)])


def _declared(options: Options) -> Mapping[str, Declared]:
    kind: Any = type(options)
    return declared_options(kind)


def _fields() -> set[str]:
    return set(declared_options(MergeOptions)) | {"progress"}


def _name(origin: Mapping[str, Any], side: str) -> str:
    """The name of a source in a provenance, on one line: a repository's, or a file's, under its side if both are alike.

    A repository is named as open_source takes it; of files nothing but the name is recorded.
    """
    names = {key: _own_name(_entry(origin, key), key) for key in ("zeroshot", "finetuned", side)}
    alike = side in ("zeroshot", "finetuned") and names["zeroshot"] == names["finetuned"]
    return f"{side}/{names[side]}" if alike else names[side]


def _own_name(entry: Mapping[str, Any], side: str) -> str:
    repository = entry.get("repository")
    name = as_text(f"hf-hub:{repository}" if repository else entry.get("name") or side.upper(), MAX_LINE)
    return f"./{name}" if name.startswith("-") else name


def _base(origin: Mapping[str, Any]) -> str | None:
    """The checkpoint that adapters were applied to, of the fine-tuned one or of members, if not the zero-shot one."""
    finetuned = _entry(origin, "finetuned")
    members = finetuned.get("members")
    adapted = [finetuned, *(members if isinstance(members, list) else [])]
    bases = [_entry(each, "base") for each in adapted if isinstance(each, Mapping)]
    # Headers are alike in all files of one architecture.
    known = [[_entry(origin, "zeroshot").get(key) for key in _IDENTITY]]
    other = next((base for base in bases if base and [base.get(key) for key in _IDENTITY] not in known), None)
    return None if other is None else _name({"base": other}, "base")


def _entry(origin: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = origin.get(key)
    return found if isinstance(found, Mapping) else {}


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
    elif option.kind is Sources:
        yield from (flag, ",".join(map(str, value)))
    elif option.is_repeated and not option.has_commas:
        for each in value:
            yield from (flag, str(each))
    else:
        text = "FILE" if isinstance(value, tuple) else repr(value) if isinstance(value, float) else str(value)
        yield from (flag, text)

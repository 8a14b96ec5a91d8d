"""Which options a command names in what it prints, and which of them it does not have.

An option may be named if the command has it, or if a command that has it is named shortly before: "with these options
of wise merge: --keep ...".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from typer.main import get_command

from mergekit_wise.cli.app import app

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
NEAR = 4
"""Lines before an option in which the command that it belongs to may be named."""

OTHERS = {
    "pip": {"--force-reinstall", "--no-deps", "--upgrade"},
    "hf download": {"--local-dir", "--repo-type"},
    "torchrun": {"--master-port", "--nproc-per-node"},
    "WILDS' download script": {"--datasets", "--root"},
    "what a flag's negation begins with": {"--no"},
}
"""Options of other programs, which hints name."""


@cache
def commands() -> Mapping[str, frozenset[str]]:
    """The options of every command by its name; "" is ``wise`` itself."""
    root = get_command(app)
    found = {"": _options(root)}
    for name, command in root.commands.items():
        found[name] = _options(command)
        for inner, part in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = _options(part)
    return found


def unknown_options(words: Sequence[str], printed: str) -> list[str]:
    """The options in a text that neither the command that printed it has nor a command that the text names."""
    own = commands()[""].union(commands().get(_command(words), ()), *OTHERS.values())
    typed = set(OPTION.findall(" ".join(words)))
    lines = printed.splitlines()
    return [
        option
        for number, line in enumerate(lines)
        for option in OPTION.findall(line)
        if option not in own | typed | _named(" ".join(lines[max(0, number - NEAR) : number + 1]))
    ]


def _command(words: Sequence[str]) -> str:
    names = [word for word in words if not word.startswith("-")]
    pair = " ".join(names[:2])
    return pair if pair in commands() else (names or [""])[0]


def _named(text: str) -> set[str]:
    return {option for name in commands() if name and f"wise {name}" in text for option in commands()[name]}


def _options(command) -> frozenset[str]:
    flags: Iterator[str] = (flag for param in command.params for flag in (*param.opts, *param.secondary_opts))
    return frozenset({"--help", *(flag for flag in flags if flag.startswith("--"))})

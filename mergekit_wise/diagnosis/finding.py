"""What a diagnosis is made of. Knows nothing of what is examined.

Texts are meant for bug reports: `place` hides who runs the tool, and no finding holds the value of a secret.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["", "note", "problem", "error"]
"""How a finding is marked: not at all, as worth knowing, as what does not work, as what makes ``wise`` unusable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: what was examined, "torch" or "cuda:0".
        value: what was found, such as a version or a size; empty if `text` says it.
        level: how it is marked.
        text: what follows from it, a clause without a full stop; empty if nothing does.
        command: what fixes it, as it is typed into a shell; empty if no command does.
    """

    name: str
    value: str = ""
    level: Level = ""
    text: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Findings about one subject under a title."""

    title: str
    findings: tuple[Finding, ...]


def place(path: Path | str, environment: Mapping[str, str] = os.environ) -> str:
    """A path as a shell understands it, with ``~`` for the home folder and ``$USER`` for folders of the user's name."""
    text = str(path)
    home = os.path.expanduser("~")
    if home not in ("~", os.sep) and (text == home or text.startswith(home + os.sep)):
        return "~" + text[len(home) :]
    user = environment.get("USER", "")
    parts = text.split(os.sep)
    return os.sep.join("$USER" if user and part == user else part for part in parts)

"""The line of ``wise merge`` that writes the mixture of a curve at any alpha. Knows curves; starts no command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.report.comparison import Curve
from mergekit_wise.report.labels import JOINED

NO_FILES = ("in memory", "soup of ")
"""Parts of the names of models that no file has."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Endings of an output that are kept; any other output is a folder."""


@dataclass(frozen=True, slots=True)
class MergeLine:
    """The parts of the line: before alpha, between alpha and alpha in the output's name, and after that.

    Words are quoted for a shell.
    """

    before: str
    between: str
    after: str

    def at(self, alpha: str) -> str:
        """The whole line."""
        return f"{self.before}{alpha}{self.between}{alpha}{self.after}"


def merge_line(curve: Curve) -> MergeLine | None:
    """The line for a curve along alpha: as its sweep wrote it, else made of the files' names and the rules.

    None without a sweep of alpha, and for models that no file holds.
    """
    if curve.swept != (ALPHA,) or len(curve.mixtures) < 2:
        return None
    written = "" if curve.choice is None else curve.choice.merge_command
    words = shlex.split(written) if written else _of_names(curve)
    if not words:
        return None
    start = max((place for place, word in enumerate(words) if word == "&&"), default=-1) + 2
    if words[start - 1 : start + 1] != ["wise", "merge"]:  # only a head is made, for instance
        return None
    output, kept = "", []
    rest = iter(words[start + 1 :])
    for word in rest:
        if word in ("--alpha", "-o", "--output"):
            value = next(rest, "")
            output = output if word == "--alpha" else value
        else:
            kept.append(word)
    if not all(0 <= alpha <= 1 for alpha in curve.mixtures) and "--extrapolate" not in kept:
        kept.append("--extrapolate")
    before = [*words[: start + 1], *kept, "--alpha"]
    suffix = next((suffix for suffix in SUFFIXES if output.endswith(suffix)), SUFFIXES[0] if not output else "")
    return MergeLine(f"{_joined(before)} ", " -o merged-", suffix)


def _of_names(curve: Curve) -> list[str]:
    """The words for the files that the records name; none if they name no two files."""
    row = next(iter(curve.rows.values()))
    names = row.details.get("checkpoints", row.model).split(JOINED)
    if len(names) != 2 or any(part in name for part in NO_FILES for name in names):
        return []
    if names[0] == names[1]:
        names = [f"zeroshot/{names[0]}", f"finetuned/{names[1]}"]
    files = (f"./{name}" if name.startswith("-") else name for name in names)
    try:
        return ["wise", "merge", *files, *(word for word in shlex.split(curve.rule) if word != "&&")]
    except ValueError:  # no rule of this tool
        return []


def _joined(words: Sequence[str]) -> str:
    return " ".join(word if word == "&&" else shlex.quote(word) for word in words)

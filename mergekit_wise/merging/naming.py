"""How the tensors of a pair are named: which side's names the output has, and tensors that the user renames."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import CheckpointError, MismatchError, UsageError
from mergekit_wise.merging.rules import SIDES, Side
from mergekit_wise.wording import plural

KEYS: Mapping[Side, str] = {side: key for key, side in SIDES.items()}
"""How options call a side."""


@dataclass(frozen=True, slots=True)
class Rename:
    """Tensors of one side to rename: those under the prefix `old`, or those that the regular expression /old/ finds."""

    side: Side
    old: str
    new: str

    def __str__(self) -> str:
        return f"{KEYS[self.side]}:{self.old}={self.new}"

    def apply(self, name: str) -> str:
        """The new name of a tensor; its own if it is not meant."""
        if self._is_expression:
            return re.sub(self.old[1:-1], self.new, name)
        rest = name.removeprefix(self.old)
        whole = not rest or rest[0] == "." or not self.old or self.old[-1] == "."
        return self.new + rest if name.startswith(self.old) and whole else name

    @property
    def _is_expression(self) -> bool:
        return len(self.old) > 2 and self.old[0] == self.old[-1] == "/"


@dataclass(frozen=True, slots=True)
class Naming:
    """The side whose names the output has where the two are of different libraries, and renamed tensors."""

    like: Side = "zeroshot"
    rename: tuple[Rename, ...] = ()

    def record(self) -> dict[str, object]:
        """What differs from the defaults, for the provenance."""
        found: dict[str, object] = {"like": self.like} if self.like != "zeroshot" else {}
        return found | ({"rename": [str(rename) for rename in self.rename]} if self.rename else {})


AS_ZEROSHOT = Naming()
"""The default."""


def read_naming(origin: Mapping[str, Any]) -> Naming:
    """The naming in a provenance. Raises CheckpointError if it cannot be understood."""
    found = origin.get("naming", {})
    try:
        sides: dict[str, Side] = {side: side for side in SIDES.values()}
        return Naming(sides[found.get("like", "zeroshot")], tuple(map(parse_rename, found.get("rename", ()))))
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise CheckpointError(f"the provenance of the file cannot be understood: {error!r}.") from error


def parse_naming(like: str | None, rename: Sequence[str]) -> Naming:
    """The values of ``--like`` and ``--rename``. Raises UsageError."""
    return Naming(SIDES[like or "zs"], tuple(map(parse_rename, rename)))


def parse_rename(text: str) -> Rename:
    """``SIDE:OLD=NEW`` or ``SIDE:/EXPRESSION/=NEW``; SIDE is zs or ft. Raises UsageError."""
    side, colon, rest = text.partition(":")
    expression = re.fullmatch(r"(/.+/)=(.*)", rest, re.DOTALL)
    old, equals, new = (expression[1], "=", expression[2]) if expression else rest.partition("=")
    if side not in SIDES or not colon or not equals or not (old or new):
        raise UsageError(f"--rename {text}: expected zs:OLD=NEW or ft:OLD=NEW, for example ft:fc=classification_head")
    rename = Rename(SIDES[side], old, new)
    try:
        rename.apply("x")
    except (re.error, IndexError) as error:
        raise UsageError(f"--rename {text}: not a regular expression: {error}.") from error
    return rename


def renamed(checkpoint: Checkpoint, renames: Sequence[Rename], *, all_needed: bool = True) -> Checkpoint:
    """The checkpoint with its tensors renamed, each by the first rule that changes its name; notes count them.

    Raises UsageError if a rule changes no name, where `all_needed`, and MismatchError if two tensors would have one
    name.
    """
    counts = dict.fromkeys(renames, 0)
    names: dict[str, str] = {}
    for name in checkpoint.tensors:
        rule = next((rule for rule in renames if rule.apply(name) != name), None)
        names[name] = rule.apply(name) if rule else name
        if rule:
            counts[rule] += 1
    if all_needed and (unused := [rule for rule, count in counts.items() if not count]):
        raise UsageError(
            f"--rename {unused[0]}: no tensor name of {checkpoint.source} fits. "
            f"List the names with: wise inspect {checkpoint.source}"
        )
    if len(set(names.values())) < len(names):
        twice = next(new for old, new in names.items() if new != old and list(names.values()).count(new) > 1)
        raise MismatchError(f"--rename: two tensors of {checkpoint.path} would have the name {twice}.")
    done = ", ".join(f"{plural(count, 'tensor')} ({rule})" for rule, count in counts.items())
    return checkpoint.renamed(names, f"renamed {done}") if counts else checkpoint

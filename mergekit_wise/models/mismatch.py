"""Explains why two checkpoints are not a pair, and what to type to make them one. Imports no torch."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Differences, Rules
from mergekit_wise.merging.movement import head_names
from mergekit_wise.merging.patterns import choose_patterns
from mergekit_wise.merging.rules import MODEL_BLOCK
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.names import HEAD, TOWER
from mergekit_wise.models.pair_notes import FINETUNED
from mergekit_wise.models.renames import propose_renames
from mergekit_wise.models.summary import Summary, summarize
from mergekit_wise.wording import fold, plural, shown

MOST_LINES = 12
"""Lines of names in a message."""

PROJECTION = "text_projection"
"""The tensor of a CLIP whose last dimension is the number of projected features."""

Command = Literal["merge", "sweep", "diff", "verify", "soup"]
"""Where the message appears: `merge` and `sweep` take the options that it proposes. `soup` is about two members."""


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """Two checkpoints whose names and shapes differ."""

    zeroshot: Checkpoint
    finetuned: Checkpoint
    found: Differences
    rules: Rules
    first: Summary
    second: Summary

    @property
    def fitting(self) -> int:
        """How many tensors have the same name and shape."""
        shared = self.zeroshot.tensors.keys() & self.finetuned.tensors.keys()
        return sum(self.zeroshot.info(name).shape == self.finetuned.info(name).shape for name in shared)

    @property
    def names(self) -> tuple[str, str]:
        """How to call the two files: by their names, or by their paths where the names are the same."""
        first, second = self.zeroshot, self.finetuned
        names = first.path.name, second.path.name
        return names if names[0] != names[1] else (first.source, second.source)

    @property
    def swapped(self) -> bool:
        """Whether the order of the two looks wrong."""
        recorded = FINETUNED in self.zeroshot.metadata and FINETUNED not in self.finetuned.metadata
        first, second = self.first, self.second
        return recorded or (
            first.classes is not None and not first.has_text and second.has_text and second.classes is None
        )

    @property
    def head_alone(self) -> str | None:
        """What a classifier calls its head where nothing else keeps a sweep from making the CLIP's head for it.

        None if the head has the usual name, or takes other features than the CLIP's projected ones.
        """
        heads = head_names(self.finetuned)
        if self.first.classes is not None or len(heads) != 1 or PROJECTION not in self.zeroshot.tensors:
            return None
        head = heads[0].removesuffix("weight")
        others = [name for name in self.found.only_finetuned if not name.startswith(head)]
        towers = [name for name in self.found.only_zeroshot if name.startswith(TOWER)]
        features = self.zeroshot.info(PROJECTION).shape[-1], self.finetuned.info(heads[0]).shape[-1]
        if head == HEAD or others or towers or self.found.shapes or features[0] != features[1]:
            return None
        return head.removesuffix(".")


def explain_mismatch(
    zeroshot: Checkpoint,
    finetuned: Checkpoint,
    found: Differences,
    rules: Rules | None = None,
    command: Command = "merge",
) -> str:
    """The text of the error about two aligned checkpoints that differ in what was `found`.

    First what the two are, then why they differ, then names, and last what to type. Lines that are to be copied are
    indented by four spaces. `rules` are those in use.
    """
    here = _Mismatch(zeroshot, finetuned, found, rules or Rules(), summarize(zeroshot), summarize(finetuned))
    lines = [f"{zeroshot.source} and {finetuned.source} do not hold the same tensors.", *_facts(here, command)]
    head = here.head_alone if command == "sweep" and not here.swapped else None
    reason = None if head else _another_model(here)
    lines += [reason] if reason else () if head else _reasons(here)
    lines += _lists(here)
    if command == "verify":
        lines.append("These are not the two checkpoints that were merged. Give those.")
    elif command == "soup":
        lines.append("All members of a soup must hold the same tensors. Leave one of the two out.")
    elif head:
        name = HEAD.removesuffix(".")
        lines.append(f"A sweep makes the zero-shot head that {here.names[0]} lacks if the other is called {name}. Add:")
        lines.append("    " + shlex.join(["--rename", f"ft:{head}={name}"]))
    elif reason is None:
        lines += _advice(here, command)
    return "\n".join(lines)


def _facts(here: _Mismatch, command: Command) -> Iterator[str]:
    for name, checkpoint, summary in zip(
        here.names, (here.zeroshot, here.finetuned), (here.first, here.second), strict=True
    ):
        yield f"  {name}: {summary}"
        if command != "diff":  # which prints notes itself
            yield from (f"  {name}: {note}" for note in checkpoint.notes)
    count = here.fitting
    yield f"  {plural(count, 'tensor')} {'has' if count == 1 else 'have'} the same name and shape in both."


def _another_model(here: _Mismatch) -> str | None:
    """Why no option can make a pair of the two; None if options can."""
    first, second = here.first, here.second
    different = [
        f"{first.image[key]} and {second.image[key]} {what}"
        for key, what in (("width", "wide"), ("layers", "layers"), ("patch_size", "pixels per patch"))
        if key in first.image and key in second.image and first.image[key] != second.image[key]
    ]
    if different:
        return (
            f"The image towers have different architectures ({', '.join(different)}); "
            "only two checkpoints of one architecture can be merged."
        )
    for stem, (few, more) in _depths(here).items():
        return (
            f"The two have different depths: {few} and {more} blocks {shown(stem)}N; "
            "only two checkpoints of one architecture can be merged."
        )
    if 2 * here.fitting >= min(len(here.zeroshot.tensors), len(here.finetuned.tensors)):
        return None
    if propose_renames(here.zeroshot, here.finetuned, here.found):
        return None
    shared = here.zeroshot.tensors.keys() & here.finetuned.tensors.keys()
    what = "Less than half of the tensors fit" if shared else "No name occurs in both"
    return f"{what}: these are two models, or one model under different names. Give two checkpoints of one model."


def _depths(here: _Mismatch) -> dict[str, tuple[int, int]]:
    """The stems of blocks that the two number differently far, where one side has all blocks of the other."""
    depths: list[dict[str, set[str]]] = [{}, {}]
    for names, checkpoint in zip(depths, (here.zeroshot, here.finetuned), strict=True):
        for name in checkpoint.tensors:
            if block := MODEL_BLOCK.search(name):
                stem, _, number = name[: block.end() - 1].rpartition(".")
                names.setdefault(f"{stem}.", set()).add(number)
    first, second = depths
    return {
        stem: (len(first[stem]), len(second[stem])) for stem in first if stem in second and first[stem] != second[stem]
    }


def _reasons(here: _Mismatch) -> Iterator[str]:
    """In words, what the difference looks like."""
    (one, other), first, second = here.names, here.first, here.second
    if here.swapped:
        yield f"The two look swapped: {one} looks like the fine-tuned model, {other} like the zero-shot one."
    if first.classes is not None and second.classes is not None and first.classes != second.classes:
        yield f"The head has {plural(first.classes, 'class')} in {one} and {second.classes:,} in {other}."
    sizes = [summary.image.get("image_size") for summary in (first, second)]
    if None not in sizes and sizes[0] != sizes[1]:
        yield f"{one} is for images of {sizes[0]} pixels and {other} for images of {sizes[1]} pixels."
    if first.has_text and first.classes is None and not second.has_text and second.classes is not None:
        yield (
            f"{other} has no text tower, and a head of {plural(second.classes, 'class')} that {one} lacks. To mix the "
            f"heads too, make the zero-shot head from the names of these classes, and give that file in place of {one}:"
        )
        named = declared_class_names(here.finetuned) is not None
        classes = ["--head-of", here.finetuned.source] if named else ["--classes", "FILE"]
        yield "    " + shlex.join(["wise", "zeroshot", here.zeroshot.source, *classes, "-o", "zs-head.safetensors"])


def _lists(here: _Mismatch) -> Iterator[str]:
    """The names that differ, folded; no more lines than a screen has room for."""
    found = here.found

    def shapes(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return here.zeroshot.info(name).shape, here.finetuned.info(name).shape

    lists = [
        (f"only in {here.names[0]}", found.only_zeroshot, [line for line, _ in fold(found.only_zeroshot)]),
        (f"only in {here.names[1]}", found.only_finetuned, [line for line, _ in fold(found.only_finetuned)]),
        (
            "of different shape",
            found.shapes,
            [
                f"{shown(line, 100)}: {' and '.join(str(list(shape)) for shape in shapes(names[0]))}"
                for line, names in fold(found.shapes, shapes)
            ],
        ),
    ]
    lists = [each for each in lists if each[1]]
    most = MOST_LINES // max(len(lists), 1)
    for title, names, lines in lists:
        yield f"  {title} ({len(names):,}):"
        # A line that says that one line is left out would be as long as that line.
        cut = lines if len(lines) <= most + 1 else lines[:most]
        yield from (f"    {shown(line, 160)}" for line in cut)
        if len(cut) < len(lines):
            yield f"    and {len(lines) - len(cut):,} more such lines"


def _advice(here: _Mismatch, command: Command) -> Iterator[str]:
    """What to type so that every difference is settled."""
    if here.swapped:
        found = Differences(here.found.only_finetuned, here.found.only_zeroshot, here.found.shapes)
        there = replace(here, zeroshot=here.finetuned, finetuned=here.zeroshot, found=found)
        if command == "sweep":
            yield "If so, give them the other way round."
        else:
            yield "If so, give them the other way round; what only one of them holds is then copied, not mixed:"
            yield _merge(there, _options(there), "merged.safetensors")
    options = _options(here)
    actions = [
        *["give the same tensors the same names"] * ("--rename" in options),
        *["copy what does not fit from one side (zs: zero-shot, ft: fine-tuned)"] * ("--keep" in options),
    ]
    what = f"{'If not, to' if here.swapped else 'To'} {', '.join(actions)} and mix the rest"
    if command != "diff":
        differing = (*here.found.only_zeroshot, *here.found.only_finetuned, *here.found.shapes)
        shadowed = any(here.rules.kept(name) for name in differing)
        yield f"{what}, add{' before the other --keep options' if shadowed else ''}:"
        yield f"    {shlex.join(options)}"
    else:
        yield f"{what}:"
        yield _merge(here, options, "merged.safetensors")


def _merge(here: _Mismatch, options: Sequence[str], output: str) -> str:
    """The line of a whole command."""
    return "    " + shlex.join(["wise", "merge", here.zeroshot.source, here.finetuned.source, *options, "-o", output])


def _options(here: _Mismatch) -> list[str]:
    """The options of a merge that settle every difference: renamings, and patterns for all that is left."""
    found, renames = here.found, propose_renames(here.zeroshot, here.finetuned, here.found)
    first = {name: here.zeroshot.info(name).shape for name in (*found.only_zeroshot, *found.shapes)}
    second = {
        _renamed(name, renames): here.finetuned.info(name).shape for name in (*found.only_finetuned, *found.shapes)
    }
    every = {*here.zeroshot.tensors, *(_renamed(name, renames) for name in here.finetuned.tensors)}
    options = [word for old, new in renames for word in ("--rename", f"ft:{old}={new}")]
    for side, names in (
        ("zs", [name for name in first if name not in second]),
        ("ft", [name for name, shape in second.items() if first.get(name) != shape]),
    ):
        patterns = choose_patterns(names, every.difference(names))
        options += [word for pattern in patterns for word in ("--keep", f"{side}:{pattern}")]
    return options


def _renamed(name: str, renames: Sequence[tuple[str, str]]) -> str:
    for old, new in renames:
        if f"{name}.".startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name

"""Two checkpoints that fit each other, or one error that says everything in which they do not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError, UsageError
from mergekit_wise.merging.align import align
from mergekit_wise.merging.rules import Rules
from mergekit_wise.wording import fold_names


@dataclass(frozen=True, slots=True)
class Pair:
    """A zero-shot and a fine-tuned checkpoint, and the names of the mixture.

    A name is in both with one shape, unless a rule takes the tensor from one side.
    """

    zeroshot: Checkpoint
    finetuned: Checkpoint
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """In what two checkpoints differ, each as names in order."""

    only_zeroshot: tuple[str, ...]
    only_finetuned: tuple[str, ...]
    shapes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.only_zeroshot or self.only_finetuned or self.shapes)


def differences(zeroshot: Checkpoint, finetuned: Checkpoint) -> Differences:
    """Compare names and shapes; reads headers only."""
    shared = [name for name in zeroshot.tensors if name in finetuned.tensors]
    return Differences(
        tuple(name for name in zeroshot.tensors if name not in finetuned.tensors),
        tuple(name for name in finetuned.tensors if name not in zeroshot.tensors),
        tuple(n for n in shared if zeroshot.info(n).shape != finetuned.info(n).shape),
    )


def match(zeroshot: Checkpoint, finetuned: Checkpoint, rules: Rules | None = None) -> Pair:
    """Pair up the two. Raises MismatchError that lists every difference that no rule resolves.

    Raises UsageError if a pattern of `rules` matches no tensor.
    """
    rules = rules or Rules()
    zeroshot, finetuned = align(zeroshot, finetuned)
    every = list(dict.fromkeys([*zeroshot.tensors, *finetuned.tensors]))
    if slips := rules.unmatched(every):
        raise UsageError(
            f"No tensor has a name that matches {' or '.join(map(repr, slips))}. "
            f"Look at the names with: wise inspect {finetuned.path}"
        )
    names = tuple(name for name in every if rules.wants(name))
    found = _unresolved(zeroshot, finetuned, names, rules)
    if found:
        raise MismatchError(_explain(zeroshot, finetuned, found))
    return Pair(zeroshot, finetuned, names)


def _unresolved(zeroshot: Checkpoint, finetuned: Checkpoint, names: Iterable[str], rules: Rules) -> Differences:
    """The differences in `names`, without those that a rule settles by taking one side's tensor."""
    sides = {"zeroshot": zeroshot.tensors, "finetuned": finetuned.tensors}
    open_names = {name for name in names if name not in sides.get(rules.kept(name) or "", ())}
    found = differences(zeroshot, finetuned)
    return Differences(
        tuple(name for name in found.only_zeroshot if name in open_names),
        tuple(name for name in found.only_finetuned if name in open_names),
        tuple(name for name in found.shapes if name in open_names),
    )


def _explain(zeroshot: Checkpoint, finetuned: Checkpoint, found: Differences) -> str:
    lines = [f"{zeroshot.path} and {finetuned.path} do not hold the same tensors:"]
    for checkpoint, names in ((zeroshot, found.only_zeroshot), (finetuned, found.only_finetuned)):
        if names:
            lines.append(f"  only in {checkpoint.path.name} ({len(names)}):")
            lines += [f"    {line}" for line in fold_names(names)]
    if found.shapes:
        lines.append(f"  of different shape ({len(found.shapes)}):")
        lines += [
            f"    {name}: {list(zeroshot.info(name).shape)} and {list(finetuned.info(name).shape)}"
            for name in found.shapes
        ]
    return "\n".join([*lines, *_advice(zeroshot, finetuned, found)])


def _advice(zeroshot: Checkpoint, finetuned: Checkpoint, found: Differences) -> list[str]:
    """The options that would settle the differences, where the two are recognisably the same model."""
    different = len(found.only_zeroshot) + len(found.only_finetuned) + len(found.shapes)
    shared = len(zeroshot.tensors.keys() & finetuned.tensors.keys())
    if different > shared:
        notes = [f"{side.path.name}: {note}" for side in (zeroshot, finetuned) for note in side.notes]
        return [*notes, "Give two checkpoints of the same model; 'wise diff' shows how they relate."]
    options = [f"--keep zs:{pattern}" for pattern in _patterns(found.only_zeroshot, zeroshot)]
    options += [f"--keep ft:{pattern}" for pattern in _patterns(found.only_finetuned, finetuned)]
    options += [f"--keep ft:{name}" for name in found.shapes[:4]]
    return [
        "Add to take these from the side that has them (zs: zero-shot, ft: fine-tuned): " + " ".join(options),
        "Or leave them out by naming what to write: --only PATTERN. Nothing is ever cropped or broadcast.",
    ]


def _patterns(names: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """Few shell patterns that match these names and none of the file's others."""
    patterns: dict[str, None] = {}
    for name in names:
        head = name.split(".")[0] + "."
        alone = "." in name and all(other in names for other in checkpoint.tensors if other.startswith(head))
        patterns[f"'{head}*'" if alone else name] = None
    return list(patterns)

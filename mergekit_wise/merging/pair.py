"""Two checkpoints that fit each other, or one error that says everything in which they do not."""

from collections.abc import Iterable
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.names import fold_names


@dataclass(frozen=True, slots=True)
class Pair:
    """A zero-shot and a fine-tuned checkpoint with the same names and shapes."""

    zeroshot: Checkpoint
    finetuned: Checkpoint

    @property
    def names(self) -> Iterable[str]:
        """Names of all tensors, in the zero-shot file's order."""
        return self.zeroshot.tensors.keys()


@dataclass(frozen=True, slots=True)
class Differences:
    """In what two checkpoints differ, each as names in order."""

    only_zeroshot: tuple[str, ...]
    only_finetuned: tuple[str, ...]
    shapes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.only_zeroshot or self.only_finetuned or self.shapes)


def align(zeroshot: Checkpoint, finetuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """The two, after taking off one prefix that one side has throughout and the other lacks."""
    names, others = zeroshot.tensors.keys(), finetuned.tensors.keys()
    if names == others:
        return zeroshot, finetuned
    if prefix := _prefix(names, others):
        return zeroshot, _without_prefix(finetuned, prefix)
    if prefix := _prefix(others, names):
        return _without_prefix(zeroshot, prefix), finetuned
    return zeroshot, finetuned


def differences(zeroshot: Checkpoint, finetuned: Checkpoint) -> Differences:
    """Compare names and shapes; reads headers only."""
    shared = [name for name in zeroshot.tensors if name in finetuned.tensors]
    return Differences(
        tuple(name for name in zeroshot.tensors if name not in finetuned.tensors),
        tuple(name for name in finetuned.tensors if name not in zeroshot.tensors),
        tuple(n for n in shared if zeroshot.info(n).shape != finetuned.info(n).shape),
    )


def match(zeroshot: Checkpoint, finetuned: Checkpoint) -> Pair:
    """Pair up the two. Raises MismatchError that lists every difference."""
    zeroshot, finetuned = align(zeroshot, finetuned)
    found = differences(zeroshot, finetuned)
    if not found:
        return Pair(zeroshot, finetuned)
    lines = [f"{zeroshot.path} and {finetuned.path} do not hold the same tensors:"]
    for title, names in (
        (f"only in {zeroshot.path.name}", found.only_zeroshot),
        (f"only in {finetuned.path.name}", found.only_finetuned),
    ):
        if names:
            lines.append(f"  {title} ({len(names)}):")
            lines += [f"    {line}" for line in fold_names(names)]
    if found.shapes:
        lines.append(f"  of different shape ({len(found.shapes)}):")
        lines += [
            f"    {name}: {list(zeroshot.info(name).shape)} and {list(finetuned.info(name).shape)}"
            for name in found.shapes
        ]
    lines.append("Give two checkpoints of the same model; 'wise diff' shows how they relate.")
    raise MismatchError("\n".join(lines))


def _prefix(names: Iterable[str], others: Iterable[str]) -> str | None:
    """What stands before every one of `names` in `others`, if that is all by which they differ."""
    names, others = set(names), set(others)
    shortest = min(names, key=lambda name: (len(name), name))
    for other in others:
        prefix = other.removesuffix(shortest)
        if prefix not in ("", other) and {prefix + name for name in names} == others:
            return prefix
    return None


def _without_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    names = {name: name.removeprefix(prefix) for name in checkpoint.tensors}
    return checkpoint.renamed(names, f"took the prefix {prefix!r} off every name")

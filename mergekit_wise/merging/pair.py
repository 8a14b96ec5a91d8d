"""Pairing two checkpoints by the names and shapes of their tensors, and what keeps them from being a pair.

Names may differ by a prefix that only one side uses, which is bridged.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.naming import AS_ZEROSHOT, Naming
from mergekit_wise.merging.rules import Rules

PROBES = 64
"""Names of one side that are searched for in the other: a prefix that matters shows in any few of them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A zero-shot and a fine-tuned checkpoint, and the names of the merged model.

    Both hold each name with the same shape, unless a rule takes the tensor from one side. `naming` says how the names
    came about.
    """

    zeroshot: Checkpoint
    finetuned: Checkpoint
    names: tuple[str, ...]
    naming: Naming = AS_ZEROSHOT


@dataclass(frozen=True, slots=True)
class Differences:
    """The names of the tensors in which two checkpoints differ, in order."""

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


def unresolved(zeroshot: Checkpoint, finetuned: Checkpoint, names: Iterable[str], rules: Rules) -> Differences:
    """The differences in `names` that no rule resolves by taking one side's tensor; reads headers only."""
    sides = {"zeroshot": zeroshot.tensors, "finetuned": finetuned.tensors}
    open_names = {name for name in names if name not in sides.get(rules.kept(name) or "", ())}
    found = differences(zeroshot, finetuned)
    return Differences(
        tuple(name for name in found.only_zeroshot if name in open_names),
        tuple(name for name in found.only_finetuned if name in open_names),
        tuple(name for name in found.shapes if name in open_names),
    )


def align(zeroshot: Checkpoint, finetuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Rename the tensors of one checkpoint so that as many names as possible are shared; a note says how.

    One prefix is removed from the side that has it (``module.``, ``image_encoder.model.``), or added to every name of
    an image encoder alone (``visual.``) where removing it would mix up the two encoders of the other file.
    """
    names, others = zeroshot.tensors.keys(), finetuned.tensors.keys()
    if names == others:
        return zeroshot, finetuned
    prefixes, gain = _best_prefixes(names, others)
    other_prefixes, other_gain = _best_prefixes(others, names)
    shared = len(names & others)
    if max(gain, other_gain) <= shared:
        return zeroshot, finetuned
    if gain >= other_gain:
        return _bridge(zeroshot, finetuned, _only(prefixes, finetuned, "ft"))
    finetuned, zeroshot = _bridge(finetuned, zeroshot, _only(other_prefixes, zeroshot, "zs"))
    return zeroshot, finetuned


def _only(prefixes: list[str], checkpoint: Checkpoint, side: str) -> str:
    """The one prefix. Raises MismatchError if several fit the other checkpoint equally well."""
    if len(prefixes) > 1:
        raise MismatchError(
            f"{checkpoint.source}: two parts of it fit the other checkpoint equally well, the tensors under "
            f"{prefixes[0]!r} and those under {prefixes[1]!r}. Take the prefix off the part that is meant: "
            f"--rename {side}:{prefixes[0]}= or --rename {side}:{prefixes[1]}="
        )
    return prefixes[0]


def _best_prefixes(names: Collection[str], others: Collection[str]) -> tuple[list[str], int]:
    """The prefixes that the most of `names` have in `others`, nearly always one, and how many those names are."""
    probes = sorted(names, key=len, reverse=True)[:PROBES]
    found = Counter(other.removesuffix(name) for name in probes for other in others if other.endswith("." + name))
    counts = {prefix: sum(prefix + name in others for name in names) for prefix, _ in found.most_common(3)}
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if count == most], most


def _bridge(bare: Checkpoint, prefixed: Checkpoint, prefix: str) -> tuple[Checkpoint, Checkpoint]:
    """Remove the prefix from `prefixed`, or add it to `bare` if that is one part of `prefixed`."""
    throughout = all(name.startswith(prefix) for name in prefixed.tensors)
    stripped = {name: name.removeprefix(prefix) for name in prefixed.tensors}
    is_part = all(prefix + name in prefixed.tensors for name in bare.tensors)
    if throughout or (not is_part and len(set(stripped.values())) == len(stripped)):
        where = "all tensor names" if throughout else "the tensor names that have it"
        return bare, prefixed.renamed(stripped, f"removed prefix {prefix!r} from {where}")
    if is_part:
        added = {name: prefix + name for name in bare.tensors}
        return bare.renamed(added, f"added prefix {prefix!r} to all tensor names"), prefixed
    return bare, prefixed

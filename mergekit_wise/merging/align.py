"""Bringing two files' names together by a prefix that only one of them uses. Knows names, not shapes."""

from collections import Counter
from collections.abc import Collection

from mergekit_wise.checkpoint import Checkpoint

PROBES = 64
"""Names of one side that are looked for in the other; a prefix that matters shows in any few of them."""


def align(zeroshot: Checkpoint, finetuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """The two, renamed so that as many names as possible are shared; what was done is in their notes.

    One prefix is taken off the side that has it (``module.``, ``image_encoder.model.``), or put before every name of
    an image tower alone (``visual.``) where taking it off would mix up the towers of the other file.
    """
    names, others = zeroshot.tensors.keys(), finetuned.tensors.keys()
    if names == others:
        return zeroshot, finetuned
    prefix, gain = _best_prefix(names, others)
    other_prefix, other_gain = _best_prefix(others, names)
    shared = len(names & others)
    if max(gain, other_gain) <= shared:
        return zeroshot, finetuned
    if gain >= other_gain:
        return _bridge(zeroshot, finetuned, prefix)
    finetuned, zeroshot = _bridge(finetuned, zeroshot, other_prefix)
    return zeroshot, finetuned


def _best_prefix(names: Collection[str], others: Collection[str]) -> tuple[str, int]:
    """What stands before the most of `names` in `others`, and how many those are."""
    probes = sorted(names, key=len, reverse=True)[:PROBES]
    found = Counter(other.removesuffix(name) for name in probes for other in others if other.endswith("." + name))
    counts = {prefix: sum(prefix + name in others for name in names) for prefix, _ in found.most_common(3)}
    best = max(counts, key=lambda prefix: counts[prefix], default="")
    return best, counts.get(best, 0)


def _bridge(bare: Checkpoint, prefixed: Checkpoint, prefix: str) -> tuple[Checkpoint, Checkpoint]:
    """`bare` lacks the prefix that `prefixed` has: take it off, unless all of `bare` is one part of `prefixed`."""
    throughout = all(name.startswith(prefix) for name in prefixed.tensors)
    stripped = {name: name.removeprefix(prefix) for name in prefixed.tensors}
    is_part = all(prefix + name in prefixed.tensors for name in bare.tensors)
    if throughout or (not is_part and len(set(stripped.values())) == len(stripped)):
        where = "every name" if throughout else "the names that have it"
        return bare, prefixed.renamed(stripped, f"took the prefix {prefix!r} off {where}")
    if is_part:
        added = {name: prefix + name for name in bare.tensors}
        return bare.renamed(added, f"put {prefix!r} before every name"), prefixed
    return bare, prefixed

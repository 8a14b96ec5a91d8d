"""Opens two checkpoints as one pair: the one place where every command that takes a pair gets it. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.errors import MismatchError, UsageError
from mergekit_wise.merging import Pair, Rules, align, unresolved
from mergekit_wise.models.mismatch import Command, explain_mismatch
from mergekit_wise.models.source import open_source


@contextmanager
def open_pair(
    zeroshot: str | Path, finetuned: str | Path, *, mmap: bool = True
) -> Iterator[tuple[Checkpoint, Checkpoint]]:
    """Open two checkpoints and give their tensors the same names, as far as possible; notes say how.

    Raises CheckpointError if one cannot be read.
    """
    first = open_source(zeroshot, mmap=mmap)
    with closing(first):
        second = open_source(finetuned, mmap=mmap)
        with closing(second):
            yield align(first, second)


def match(
    zeroshot: Checkpoint, finetuned: Checkpoint, rules: Rules | None = None, *, command: Command | None = None
) -> Pair:
    """Pair two checkpoints. Raises MismatchError that explains every difference that no rule resolves.

    The explanation proposes what `command` can do: by default a merge's options where there are `rules`. Raises
    UsageError if a pattern of `rules` matches no tensor.
    """
    command = command or ("merge" if rules else "other")
    rules = rules or Rules()
    zeroshot, finetuned = align(zeroshot, finetuned)
    every = list(dict.fromkeys([*zeroshot.tensors, *finetuned.tensors]))
    if unmatched := rules.unmatched(every):
        raise UsageError(
            f"No tensor name matches {' or '.join(map(repr, unmatched))}. "
            f"List the names with: wise inspect {finetuned.path}"
        )
    names = tuple(name for name in every if rules.wants(name))
    if found := unresolved(zeroshot, finetuned, names, rules):
        raise MismatchError(explain_mismatch(zeroshot, finetuned, found, rules, command))
    return Pair(zeroshot, finetuned, names)

"""Opens two checkpoints as one pair: the one place where every command that takes a pair gets it. Imports no torch."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.errors import MismatchError, UsageError
from mergekit_wise.merging import Pair, Rules, align, unresolved
from mergekit_wise.models.adapted import apply_adapters
from mergekit_wise.models.mismatch import explain_mismatch
from mergekit_wise.models.source import open_any


@contextmanager
def open_pair(
    zeroshot: str | Path, finetuned: str | Path, base: str | Path | None = None, *, mmap: bool = True
) -> Iterator[tuple[Checkpoint, Checkpoint]]:
    """Open two checkpoints and give their tensors the same names, as far as possible; notes say how.

    A side that is an adapter becomes the model that it makes of `base`, by default of the zero-shot checkpoint. Raises
    CheckpointError if one cannot be read, and what `apply_adapters` raises.
    """
    with ExitStack() as stack:
        opened = []
        for source in (zeroshot, finetuned, *([] if base is None else [base])):
            opened.append(open_any(source, mmap=mmap))
            stack.enter_context(closing(opened[-1]))
        yield align(*apply_adapters(*opened))


def match(zeroshot: Checkpoint, finetuned: Checkpoint, rules: Rules | None = None) -> Pair:
    """Pair two checkpoints. Raises MismatchError that explains every difference that no rule resolves.

    Raises UsageError if a pattern of `rules` matches no tensor.
    """
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
        raise MismatchError(explain_mismatch(zeroshot, finetuned, found))
    return Pair(zeroshot, finetuned, names)

"""The pair of a merge: notes on its two checkpoints, and the one that the model is built from. Imports no torch."""

from collections.abc import Iterator

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Pair
from mergekit_wise.models.architecture import declared_config, with_declared_config

FINETUNED = "mergekit_wise_finetune"
"""The metadata entry that holds, as JSON, how a checkpoint was fine-tuned."""

SAME = "both checkpoints have identical weights; alpha has no effect"


def notes_on_reading(pair: Pair) -> Iterator[str]:
    """What was removed or ignored when the two checkpoints were opened."""
    return (f"{side.path.name}: {note}" for side in (pair.zeroshot, pair.finetuned) for note in side.notes)


def notes_on_order(pair: Pair) -> Iterator[str]:
    """A note if the zero-shot checkpoint records that it was fine-tuned, and the fine-tuned one does not."""
    first, second = pair.zeroshot, pair.finetuned
    if FINETUNED in first.metadata and FINETUNED not in second.metadata:
        yield (
            f"{first.path.name}, given as the zero-shot checkpoint, records that it was fine-tuned, and "
            f"{second.path.name} does not: if they are swapped, alpha 0 is the fine-tuned model and 1 the zero-shot one"
        )


def template(pair: Pair) -> Checkpoint:
    """The fine-tuned checkpoint, which has the head; with the zero-shot one's configuration if it declares none."""
    if declared_config(pair.finetuned):
        return pair.finetuned
    return with_declared_config(pair.finetuned, declared_config(pair.zeroshot))

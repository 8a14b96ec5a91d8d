"""The two ends of a mixture: whether they are what they were given as, and which of them tells the architecture.

Imports no torch: a merge asks, too.
"""

from collections.abc import Iterator

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Pair
from mergekit_wise.models.declared_config import remember, told

FINETUNED = "mergekit_wise_finetune"
"""The metadata entry that says, as JSON, what a fine-tuned checkpoint was made of."""

SAME = "all weights that count here are the same at both ends: every alpha gives this one model"


def readings(pair: Pair) -> Iterator[str]:
    """What was taken off or left out when the two were read."""
    return (f"{side.path.name}: {note}" for side in (pair.zeroshot, pair.finetuned) for note in side.notes)


def swapped(pair: Pair) -> Iterator[str]:
    """A remark if the first of the two says that it was fine-tuned, and the second does not."""
    first, second = pair.zeroshot, pair.finetuned
    if FINETUNED in first.metadata and FINETUNED not in second.metadata:
        yield (
            f"{first.path.name}, given as the zero-shot checkpoint, says that it was fine-tuned, and "
            f"{second.path.name} does not: if they are swapped, alpha 0 is the fine-tuned model and 1 the zero-shot one"
        )


def template(pair: Pair) -> Checkpoint:
    """The fine-tuned checkpoint, which has the head; where only the zero-shot one tells what it is, with that told."""
    return pair.finetuned if told(pair.finetuned) else remember(pair.finetuned, told(pair.zeroshot))

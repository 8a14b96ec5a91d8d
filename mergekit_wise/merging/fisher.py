"""Fisher information of both models, which weights each element in the merge. Knows no file format."""

import json
from dataclasses import dataclass

import numpy as np

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.arithmetic import Numbers, Real, Scratch, decode
from mergekit_wise.merging.pair import Pair, align

RECORD = "mergekit_wise_fisher"
"""The metadata entry that says, as JSON, how a file of Fisher information was made."""


@dataclass(frozen=True, slots=True)
class Fishers:
    """Diagonal Fisher information by the names of the weights; values below `floor` count as `floor`."""

    zeroshot: Checkpoint
    finetuned: Checkpoint
    floor: float

    def read(self, name: str, start: int, stop: int, real: Real) -> tuple[Numbers, Numbers] | None:
        """Both sides' values for elements `start` to `stop`; None for a tensor without Fisher information."""
        if name not in self.zeroshot.tensors:
            return None
        values = []
        for side in (self.zeroshot, self.finetuned):
            numbers = decode(side.read(name, start, stop), side.info(name).dtype, real, Scratch(), 0)
            values.append(np.maximum(numbers, real(self.floor)))
        return values[0], values[1]


def open_fishers(pair: Pair, zeroshot: Checkpoint, finetuned: Checkpoint, floor: float) -> Fishers:
    """Check that two files of Fisher information belong to the pair.

    Raises MismatchError unless both cover the same tensors, in the shapes of the weights, or if one says that it is of
    the other side: both sides have the same shapes, so that nothing else would show that the files were exchanged.
    """
    for given, own, other in ((zeroshot, pair.zeroshot, pair.finetuned), (finetuned, pair.finetuned, pair.zeroshot)):
        made_of = _made_of(given)
        if made_of == other.path.name != own.path.name:
            raise MismatchError(
                f"{given.path}: is the Fisher information of {made_of}, and was given for {own.path.name}. Give the "
                "zero-shot model's first and the fine-tuned model's second."
            )
    _, zeroshot = align(pair.zeroshot, zeroshot)
    _, finetuned = align(pair.zeroshot, finetuned)
    wrong = []
    for name in sorted((zeroshot.tensors.keys() | finetuned.tensors.keys()) & set(pair.names)):
        shapes = [side.info(name).shape for side in (zeroshot, finetuned) if name in side.tensors]
        if shapes != [pair.zeroshot.info(name).shape] * 2:
            wrong.append(f"  {name}")
    if wrong:
        raise MismatchError(
            f"{zeroshot.path} and {finetuned.path}: these tensors lack Fisher information on one side, or have it in "
            "a different shape than the weights:\n" + "\n".join(wrong)
        )
    if not zeroshot.tensors.keys() & set(pair.names):
        raise MismatchError(f"{zeroshot.path}: holds no Fisher information for these weights. Check its tensor names.")
    return Fishers(zeroshot, finetuned, floor)


def _made_of(fisher: Checkpoint) -> str:
    """The name of the checkpoint that Fisher information was computed of; empty if it does not say."""
    try:
        record = json.loads(fisher.metadata.get(RECORD, "{}"))
        name = record["checkpoint"]["name"]
    except (ValueError, RecursionError, KeyError, TypeError):  # written by another tool
        return ""
    return name if isinstance(name, str) else ""

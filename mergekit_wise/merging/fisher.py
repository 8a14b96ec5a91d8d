"""Fisher information of both models, which weights each element in the merge. Knows no file format."""

from dataclasses import dataclass

import numpy as np

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.arithmetic import Numbers, Real, Scratch, decode
from mergekit_wise.merging.pair import Pair, align


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

    Raises MismatchError unless both cover the same tensors, in the shapes of the weights.
    """
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

"""Fisher information of both models, which weighs each element's share in the mixture. Knows no file format."""

from dataclasses import dataclass

import numpy as np

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.align import align
from mergekit_wise.merging.arithmetic import Numbers, Scratch, decode
from mergekit_wise.merging.pair import Pair


@dataclass(frozen=True, slots=True)
class Fishers:
    """Diagonal Fisher information by the names of the weights; values below `floor` count as `floor`."""

    zeroshot: Checkpoint
    finetuned: Checkpoint
    floor: float

    def read(
        self, name: str, start: int, stop: int, kind: type[np.float32] | type[np.float64]
    ) -> tuple[Numbers, Numbers] | None:
        """Both sides' values for elements `start` to `stop`; None for a tensor that has none."""
        if name not in self.zeroshot.tensors:
            return None
        values = []
        for side in (self.zeroshot, self.finetuned):
            numbers = decode(side.read(name, start, stop), side.info(name).dtype, kind, Scratch(), 0)
            values.append(np.maximum(numbers, kind(self.floor)))
        return values[0], values[1]


def open_fishers(pair: Pair, zeroshot: Checkpoint, finetuned: Checkpoint, floor: float) -> Fishers:
    """Check that the two belong to the pair.

    Raises MismatchError unless every tensor that one of them covers is covered by the other, in the weights' shape.
    """
    _, zeroshot = align(pair.zeroshot, zeroshot)
    _, finetuned = align(pair.zeroshot, finetuned)
    faults = []
    for name in sorted((zeroshot.tensors.keys() | finetuned.tensors.keys()) & set(pair.names)):
        shapes = [side.info(name).shape for side in (zeroshot, finetuned) if name in side.tensors]
        if shapes != [pair.zeroshot.info(name).shape] * 2:
            faults.append(f"  {name}")
    if faults:
        raise MismatchError(
            f"{zeroshot.path} and {finetuned.path}: these tensors lack Fisher information on one side, or have it in "
            "another shape than the weights:\n" + "\n".join(faults)
        )
    if not zeroshot.tensors.keys() & set(pair.names):
        raise MismatchError(f"{zeroshot.path}: holds no Fisher information for any of the weights' names.")
    return Fishers(zeroshot, finetuned, floor)

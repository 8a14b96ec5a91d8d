"""What becomes of each tensor, decided from facts alone: no tensor is read here."""

from dataclasses import dataclass
from typing import Literal

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.dtypes import mixed_dtype
from mergekit_wise.merging.pair import Pair

Action = Literal["mix", "choose", "zeroshot", "finetuned"]


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor of the output.

    ``mix``: (1 - alpha) * a + alpha * b, unless the two are equal byte for byte: then copied.
    ``choose``: not a number that can be mixed; copied where equal, else the fine-tuned one.
    ``zeroshot``, ``finetuned``: that side's bytes, because alpha is 0 or 1.
    """

    info: TensorInfo
    action: Action


def make_plan(pair: Pair, alpha: float) -> tuple[Step, ...]:
    """Decide for every tensor. Raises MismatchError that lists all tensors whose dtypes forbid mixing."""
    if alpha in (0, 1):
        return _one_side(pair.finetuned if alpha else pair.zeroshot, alpha)
    steps = []
    refused = []
    for name in pair.names:
        a, b = pair.zeroshot.info(name), pair.finetuned.info(name)
        dtype = mixed_dtype(a.dtype, b.dtype)
        if dtype is not None:
            steps.append(Step(TensorInfo(name, dtype, a.shape), "mix"))
        elif a.dtype == b.dtype and a.dtype.kind in ("integer", "bool"):
            steps.append(Step(a, "choose"))
        else:
            refused.append(f"  {name}: {a.dtype} and {b.dtype}")
    if refused:
        raise MismatchError(
            "Tensors of these dtypes cannot be mixed:\n"
            + "\n".join(refused)
            + "\nSave both checkpoints in one floating-point dtype."
        )
    return tuple(steps)


def _one_side(checkpoint: Checkpoint, alpha: float) -> tuple[Step, ...]:
    action: Action = "finetuned" if alpha else "zeroshot"
    return tuple(Step(stored.info, action) for stored in checkpoint.tensors.values())

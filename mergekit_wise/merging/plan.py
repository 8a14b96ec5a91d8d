"""What becomes of each tensor, decided from facts alone: no tensor is read here."""

from dataclasses import dataclass
from typing import Literal

from mergekit_wise.checkpoint import Checkpoint, DType, TensorInfo
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.dtypes import MIXABLE, mixed_dtype
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.rules import Rules, Side

Action = Literal["mix", "choose", "zeroshot", "finetuned"]


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor of the output.

    ``mix``: (1 - alpha) * a + alpha * b, unless the two are equal byte for byte: then copied.
    ``choose``: not a number that can be mixed; copied where equal, else the fine-tuned one.
    ``zeroshot``, ``finetuned``: that side's tensor, because alpha is 0 or 1 or because a rule says so.
    """

    info: TensorInfo
    action: Action
    alpha: float


def make_plan(pair: Pair, rules: Rules) -> tuple[Step, ...]:
    """Decide for every tensor. Raises MismatchError that lists all tensors whose dtypes forbid mixing."""
    alphas = rules.alphas(pair.names)
    steps = [_step(pair, name, alphas[name], rules) for name in pair.names]
    refused = [name for name, step in zip(pair.names, steps, strict=True) if step is None]
    if refused:
        lines = [
            f"  {name}: {pair.zeroshot.info(name).dtype} and {pair.finetuned.info(name).dtype}" for name in refused
        ]
        raise MismatchError(
            "Tensors of these dtypes cannot be mixed:\n"
            + "\n".join(lines)
            + "\nSave both checkpoints in one floating-point dtype, or take them from one side with --keep."
        )
    return tuple(step for step in steps if step is not None)


def _step(pair: Pair, name: str, alpha: float, rules: Rules) -> Step | None:
    """None where the dtypes forbid mixing."""
    side = rules.kept(name) or _end(alpha)
    if side is not None:
        return _from_side(getattr(pair, side), name, side, alpha, rules.dtype)
    a, b = pair.zeroshot.info(name), pair.finetuned.info(name)
    dtype = mixed_dtype(a.dtype, b.dtype)
    if dtype is not None:
        return Step(TensorInfo(name, _wanted(dtype, rules.dtype), a.shape), "mix", alpha)
    if a.dtype == b.dtype and a.dtype.kind in ("integer", "bool"):
        return Step(a, "choose", alpha)
    return None


def _end(alpha: float) -> Side | None:
    return {0.0: "zeroshot", 1.0: "finetuned"}.get(alpha)  # type: ignore[return-value]


def _from_side(checkpoint: Checkpoint, name: str, side: Side, alpha: float, dtype: DType | None) -> Step:
    info = checkpoint.info(name)
    return Step(TensorInfo(name, _wanted(info.dtype, dtype), info.shape), side, alpha)


def _wanted(dtype: DType, asked: DType | None) -> DType:
    """What was asked for, where a tensor is of real floating-point numbers."""
    return asked if asked and dtype.name in MIXABLE and dtype.kind == "float" else dtype

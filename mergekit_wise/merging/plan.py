"""Decides from facts alone what becomes of each tensor, and in which dtype: no tensor is read here."""

import shlex
from dataclasses import dataclass
from typing import Literal

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, DType, TensorInfo
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.patterns import choose_patterns
from mergekit_wise.merging.rules import Rules, Side
from mergekit_wise.wording import fold, plural, shown

MIXABLE = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "C64")

PRECISION = ("F8_E5M2", "F8_E4M3", "BF16", "F16", "F32", "F64", "C64")
"""The same by the number of significant bits."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor of the output: its facts, its alpha, and one of these actions.

    ``mix``: (1 - alpha) * a + alpha * b; copied if the two are equal byte for byte, or up to the `frozen_tolerance`.
    ``choose``: not numbers that can be mixed; copied if equal, else the fine-tuned tensor.
    ``zeroshot``, ``finetuned``: that side's tensor, because alpha is 0 or 1 or because of a rule.
    """

    info: TensorInfo
    action: Literal["mix", "choose", "zeroshot", "finetuned"]
    alpha: float
    frozen_tolerance: float | None = None


def make_plan(pair: Pair, rules: Rules) -> tuple[TensorPlan, ...]:
    """Decide for every tensor. Raises MismatchError that lists all tensors whose dtypes cannot be mixed."""
    plans = _plans(pair, rules)
    if refused := [name for name, plan in plans.items() if plan is None]:
        raise MismatchError(_explain_refusal(pair, refused))
    return tuple(plan for plan in plans.values() if plan is not None)


def unmixable(pair: Pair, rules: Rules) -> list[str]:
    """The names of the tensors whose dtypes cannot be mixed, and that no rule copies from one side."""
    return [name for name, plan in _plans(pair, rules).items() if plan is None]


def mixed_dtype(a: DType, b: DType) -> DType | None:
    """The dtype of a mixture of `a` and `b`, which is torch's promotion of the two; None where they cannot be mixed.

    float16 with bfloat16 gives float32. An 8-bit float mixes only with its own dtype, as in torch, and complex only
    with complex: next to a real tensor it is a sign of two different models.
    """
    if a.name not in MIXABLE or b.name not in MIXABLE:
        return None
    if a == b:
        return a
    if a.itemsize == 1 or b.itemsize == 1 or "complex" in (a.kind, b.kind):
        return None
    return BY_NAME["F64" if "F64" in (a.name, b.name) else "F32"]


def narrower(a: DType, b: DType) -> DType:
    """Of two dtypes that can be mixed, the one with fewer significant bits."""
    return min(a, b, key=lambda dtype: PRECISION.index(dtype.name))


def _plans(pair: Pair, rules: Rules) -> dict[str, TensorPlan | None]:
    alphas = rules.alphas(pair.names)
    return {name: _plan(pair, name, alphas[name], rules) for name in pair.names}


def _explain_refusal(pair: Pair, refused: list[str]) -> str:
    def dtypes(name: str) -> str:
        return f"{pair.zeroshot.info(name).dtype} and {pair.finetuned.info(name).dtype}"

    patterns = choose_patterns(refused, set(pair.names).difference(refused))
    options = shlex.join(word for pattern in patterns for word in ("--keep", f"ft:{pattern}"))
    return "\n".join(
        (
            f"{plural(len(refused), 'tensor')} cannot be mixed because of the dtypes:",
            *(f"  {shown(line, 100)}: {dtypes(names[0])}" for line, names in fold(refused, dtypes)),
            "Save both checkpoints in one floating-point dtype; or copy these tensors from one side (ft: fine-tuned, "
            "zs: zero-shot) with these options:",
            f"    {options}",
        )
    )


def _plan(pair: Pair, name: str, alpha: float, rules: Rules) -> TensorPlan | None:
    """None where the dtypes cannot be mixed."""
    sides: dict[Side, Checkpoint] = {"zeroshot": pair.zeroshot, "finetuned": pair.finetuned}
    endpoints: dict[float, Side] = {0.0: "zeroshot", 1.0: "finetuned"}
    side = rules.kept(name) or endpoints.get(alpha)
    if side is not None:
        tensor = sides[side].tensors[name]
        return TensorPlan(TensorInfo(name, _output_dtype(tensor.saved_as, rules.dtype), tensor.info.shape), side, alpha)
    a, b = pair.zeroshot.info(name), pair.finetuned.info(name)
    dtype = mixed_dtype(pair.zeroshot.tensors[name].saved_as, pair.finetuned.tensors[name].saved_as)
    if dtype is not None:
        return TensorPlan(
            TensorInfo(name, _output_dtype(dtype, rules.dtype), a.shape), "mix", alpha, rules.frozen_tolerance
        )
    if a.dtype == b.dtype and a.dtype.kind in ("integer", "bool"):
        return TensorPlan(a, "choose", alpha)
    return None


def _output_dtype(dtype: DType, requested: DType | None) -> DType:
    """The requested dtype for tensors of real floating-point numbers, else `dtype`."""
    return requested if requested and dtype.name in MIXABLE and dtype.kind == "float" else dtype

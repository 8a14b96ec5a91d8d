"""Rules from the literature that look at the weights alone, each with its control: one that only shrinks the update.

A rule changes the direction of the update D = theta_1 - theta_0, and its size. Only the first needs the rule: any size
can be had by choosing alpha. So a rule is compared with mixtures of the same size. Knows no data and no model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from glob import escape
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.derived import InMemory
from mergekit_wise.merging.arithmetic import Scratch, computing_type, decode, encode
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import TensorPlan, make_plan
from mergekit_wise.merging.rules import Rules
from mergekit_wise.progress import Progress, silent

ENERGY = 0.8
"""The share of a matrix's squared singular values that MonoSoup counts as its strong directions."""

SHRUNK = "shrunk as by MonoSoup"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DataFreeRule:
    """A mixture of `pair` by `rules`.

    Attributes:
        name: for tables.
        pair: the two checkpoints, or the zero-shot one and another end that the rule computed.
        rules: alphas by tensor.
        size: ||update|| / ||D|| over all tensors that are mixed.
        control: the name of the rule before it, which only shrinks D to the same size; None for a single alpha.
        is_short: whether few options of ``wise merge`` make this mixture.
    """

    name: str
    pair: Pair
    rules: Rules
    size: float
    control: str | None
    is_short: bool = False


def data_free_rules(pair: Pair, rules: Rules, progress: Progress = silent) -> tuple[DataFreeRule, ...]:
    """The rules and their controls, for a pair with base `rules`, whose alpha they share.

    - one alpha: WiSE-FT.
    - vectors fine-tuned: biases, norms and all other tensors with fewer than two dimensions from the fine-tuned side.
    - LiNeS (Wang et al., ICLR 2025): alpha rises from 0 in the first block to twice the alpha, at most 1, in the last.
    - MonoSoup (2026): see `monosoup`. Vectors are mixed at alpha.
    - Model Stock (Jang et al., ECCV 2024) has no angle between updates to measure with a single fine-tuned model: its
      ratio is 1, so it is the fine-tuned model, which is measured anyway.

    Before each comes its control: one alpha for all tensors, so that the whole update has the size of the rule's; for
    MonoSoup an alpha for each matrix, so that each update has the size of the rule's, which has such a control itself.
    """
    plan = [step for step in make_plan(pair, rules) if step.action == "mix"]
    norms = {step.info.name: float(np.linalg.norm(_update(pair, step))) for step in plan}
    total = sqrt(sum(norm**2 for norm in norms.values())) or 1.0
    vectors = tuple((escape(step.info.name), 1.0) for step in plan if len(step.info.shape) < 2)
    depth = (0.0, min(1.0, 2 * rules.alpha))
    found = [
        DataFreeRule("vectors fine-tuned", pair, replace(rules, alpha_for=(*vectors, *rules.alpha_for)), 0.0, None),
        DataFreeRule("LiNeS", pair, replace(rules, depth=depth), 0.0, None, is_short=True),
    ]
    sized = [replace(each, size=_size(each, norms, total)) for each in found]
    soup, ratios = monosoup(pair, plan, progress)
    end = Pair(pair.zeroshot, soup, pair.names, pair.naming)
    whole = {name: ratios.get(name, rules.alpha) for name in norms}
    size = sqrt(sum((whole[name] * norm) ** 2 for name, norm in norms.items())) / total
    mixed = tuple((escape(name), rules.alpha) for name in norms if name not in ratios)
    each_tensor = tuple((escape(name), min(ratio, 1.0)) for name, ratio in ratios.items())
    shrunk = replace(rules, alpha_for=each_tensor, depth=None)
    sized.append(DataFreeRule(SHRUNK, pair, shrunk, size, None))
    softened = replace(rules, alpha=1.0, alpha_for=mixed, depth=None)
    return (
        DataFreeRule("one alpha", pair, replace(rules, depth=None), rules.alpha, None, is_short=True),
        *(part for each in sized for part in _with_control(each, pair, rules)),
        DataFreeRule("MonoSoup", end, softened, size, SHRUNK),
    )


def monosoup(
    pair: Pair, plan: list[TensorPlan], progress: Progress = silent, energy: float = ENERGY
) -> tuple[Checkpoint, Mapping[str, float]]:
    """The fine-tuned checkpoint with MonoSoup's matrices, and by name how large their updates are relative to D.

    Each matrix (kernels flattened to [out, rest]) of D = U S V^T is split at the k-th singular value, the first k
    holding at least `energy` of the squares, P their share; rho = (s_{k+1} / s_1)^2, low = rho + (1 - rho) sqrt(1 - P),
    high = 1 - low; theta = theta_0 + high D_high + low D_low.
    """
    tensors, ratios = dict(pair.finetuned.tensors), {}
    matrices = [step for step in plan if len(step.info.shape) > 1 and step.info.count]
    for number, step in enumerate(matrices):
        progress("decomposing matrices", number, len(matrices), "tensors")
        update = _update(pair, step)
        norm = float(np.linalg.norm(update))
        if norm:
            softened = soften(update.reshape(step.info.shape[0], -1), energy)
            ratios[step.info.name] = float(np.linalg.norm(softened)) / norm
            values = _numbers(pair.zeroshot, step.info.name) + softened.reshape(-1)
            dtype = step.info.dtype
            rounded = values if dtype.name == "F64" else values.astype(np.float32)
            tensors[step.info.name] = InMemory(step.info, encode(rounded, dtype, Scratch()).copy())
    progress("decomposing matrices", len(matrices), len(matrices), "tensors")
    return replace(pair.finetuned, tensors=tensors), ratios


def soften(update: Numbers, energy: float = ENERGY) -> Numbers:
    """MonoSoup's update of a matrix [m, n] from D; see `monosoup`."""
    left, values, right = np.linalg.svd(update, full_matrices=False)
    shares = np.cumsum(values**2) / (values**2).sum()
    strong = int(np.searchsorted(shares, energy - 1e-12)) + 1
    if strong >= len(values):
        return update  # no weak directions: rho and sqrt(1 - P) are 0, so low is 0 and high is 1
    rho = (values[strong] / values[0]) ** 2
    low = rho + (1 - rho) * sqrt(max(0.0, 1 - shares[strong - 1]))
    factors = np.where(np.arange(len(values)) < strong, 1 - low, low)
    softened: Numbers = (left * (values * factors)) @ right
    return softened


def _with_control(rule: DataFreeRule, pair: Pair, rules: Rules) -> Iterator[DataFreeRule]:
    """The rule, and before it the single alpha of the same size."""
    alpha = min(rule.size, 1.0)
    name = f"one alpha of {alpha:.3f}"
    yield DataFreeRule(name, pair, replace(rules, alpha=alpha, alpha_for=(), depth=None), alpha, None, is_short=True)
    yield replace(rule, control=name)


def _size(rule: DataFreeRule, norms: Mapping[str, float], total: float) -> float:
    alphas = rule.rules.alphas(rule.pair.names)
    return sqrt(sum((alphas[name] * norm) ** 2 for name, norm in norms.items())) / total


def _update(pair: Pair, step: TensorPlan) -> Numbers:
    """D of one tensor, float64, flattened."""
    return _numbers(pair.finetuned, step.info.name) - _numbers(pair.zeroshot, step.info.name)


def _numbers(checkpoint: Checkpoint, name: str) -> Numbers:
    dtype = checkpoint.info(name).dtype
    numbers: Numbers = decode(checkpoint.read(name), dtype, computing_type((dtype, dtype)), Scratch(), 0).astype(
        np.float64
    )
    return numbers

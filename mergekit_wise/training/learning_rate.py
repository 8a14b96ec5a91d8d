"""Learning rates: linear warm-up and cosine decay over the steps of a run, and layer-wise decay over the depth.

Knows the names of parameters, not their values.
"""

import math
import re
from collections.abc import Iterable

from mergekit_wise.merging.rules import MODEL_BLOCK

STEM = re.compile(
    r"(?:^|\.)(?:conv\d|bn\d|stem|patch_embed|ln_pre|norm_pre|class_embedding|cls_token|cls_emb|pos_embed"
    r"|token_embedding|(?<!attnpool\.)positional_embedding|embeddings)(?:\.|$)"
)
"""Matches the names (open_clip's and timm's) of the tensors before the first block."""


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Return the factor on the peak learning rate at ``step`` in 0..total-1, as in the paper (section 4).

    ``(step + 1) / warmup`` while warming up, so that the first step already changes the weights; then
    ``(1 + cos(pi * t)) / 2`` with ``t`` growing from 0 towards 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def layer_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """Return the factor on each parameter's learning rate, by name: ``decay ** distance`` from the last layer.

    As BEiT was fine-tuned (Bao et al., arXiv 2106.08254): the layers after the last block have the full rate, each
    block has `decay` times the rate of the next, and the layers before the first block have the lowest rate.
    """
    names = list(names)
    blocks: dict[str, list[tuple[int, ...]]] = {}
    for name in names:
        if place := _block(name):
            tower, number = place
            if number not in blocks.setdefault(tower, []):
                blocks[tower].append(number)
    order = {tower: sorted(numbers) for tower, numbers in blocks.items()}
    return {name: decay ** _distance(name, order) for name in names}


def _distance(name: str, order: dict[str, list[tuple[int, ...]]]) -> int:
    if place := _block(name):
        tower, number = place
        return len(order[tower]) - order[tower].index(number)
    if STEM.search(name):
        own = name.partition(".")[0]
        return 1 + max((len(numbers) for tower, numbers in order.items() if tower.startswith(own)), default=0)
    return 0


def _block(name: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the tower of a block's tensor and the block's numbers: (stage, index) in a ResNet, else (index,)."""
    found = MODEL_BLOCK.search(name)
    if found is None:
        return None
    tower = re.sub(r"(?:layer[1-4]|stages)\.?$", "", name[: found.start()])
    return tower, tuple(map(int, re.findall(r"\d+", name[len(tower) : found.end()])))

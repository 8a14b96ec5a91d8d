"""Layer-wise learning rates: the deeper a layer lies, the more slowly it learns. Knows names, not weights.

As BEiT was fine-tuned (Bao et al., arXiv 2106.08254): the layer after the last block has the full rate, each block
before it `decay` times the rate of the next, and what comes before the first block the lowest one.
"""

import re
from collections.abc import Iterable

from mergekit_wise.merging.rules import MODEL_BLOCK

STEM = re.compile(
    r"(?:^|\.)(?:conv\d|bn\d|stem|patch_embed|ln_pre|norm_pre|class_embedding|cls_token|cls_emb|pos_embed"
    r"|token_embedding|(?<!attnpool\.)positional_embedding|embeddings)(?:\.|$)"
)
"""What comes before the first block, in the names of open_clip and timm."""


def layer_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied with: ``decay ** distance`` from the last layer."""
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
    """The tower of a block's tensor, and the block's numbers: stage and place of a ResNet's, place of others."""
    found = MODEL_BLOCK.search(name)
    if found is None:
        return None
    tower = re.sub(r"(?:layer[1-4]|stages)\.?$", "", name[: found.start()])
    return tower, tuple(map(int, re.findall(r"\d+", name[len(tower) : found.end()])))

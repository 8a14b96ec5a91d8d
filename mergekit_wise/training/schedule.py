"""Learning rates over a run: linear warm-up, then half a cosine down to zero. Knows nothing of what is trained."""

import math


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """The factor on the peak learning rate at ``step`` in 0..total-1, as the paper trains (its section 4).

    ``(step + 1) / warmup`` while warming up, so that the first step already learns; then
    ``(1 + cos(pi * t)) / 2`` with ``t`` growing from 0 towards 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

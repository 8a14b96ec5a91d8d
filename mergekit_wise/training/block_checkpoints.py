"""Activation checkpointing: the blocks of a model keep their inputs alone, and compute the rest again when needed.

It saves most of the memory that training takes for activations, for about a third more computing (Chen et al., arXiv
1604.06174). The same operations run again on the same inputs, so gradients are the same bit for bit. Works on the
towers of every library alike; knows no architecture by name.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(module: nn.Module) -> int:
    """Let each block of `module` keep its inputs alone, from now on; returns the number of blocks."""
    blocks = list(_blocks(module))
    for block in blocks:
        block.forward = _checkpointed(block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a module: what a list or sequence in it repeats, such as the layers of a transformer.

    Where blocks have lists of blocks in them, the inner ones: they need the least memory when computed again.
    """
    for child in module.children():
        inner = list(_blocks(child))
        if inner:
            yield from inner
        elif isinstance(child, (nn.Sequential, nn.ModuleList)) and _repeats(child):
            yield from child


def _repeats(sequence: nn.Sequential | nn.ModuleList) -> bool:
    """Whether a sequence repeats one kind of module that has parts of its own, not a single layer."""
    parts = list(sequence)
    return len(parts) > 1 and len(set(map(type, parts))) == 1 and any(True for _ in parts[0].children())


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def computed_again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return computed_again

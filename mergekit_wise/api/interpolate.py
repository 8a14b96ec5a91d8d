"""Sets the weights of a module in place to a mixture of two models."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from mergekit_wise.api.merge import merge
from mergekit_wise.merging.torch_backend import as_tensor
from mergekit_wise.models.live import unwrapped
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.option_types import ModelInMemory, Weights

Module = TypeVar("Module", bound=torch.nn.Module)


@torch.no_grad()
def interpolate_(
    module: Module,
    zeroshot: Weights,
    finetuned: "Weights | None" = None,
    alpha: float = 0.5,
    *,
    note: Callable[[str], object] = str,
    **rules: Any,
) -> Module:
    """Set the weights of `module` to ``(1 - alpha) * zeroshot + alpha * finetuned`` (WiSE-FT, Eq. 1); returns it.

    The values are those that a merged file holds, in the module's own dtypes and on its device, and rows of a head in
    the order of the module's own classes. The module may be one of the two models: nothing is set before everything is
    mixed, and nothing at all if that fails.

    Args:
        module: with the tensors of the mixture, under the names of any library that `merge` knows.
        zeroshot: the zero-shot model: a file, a module or a state dict.
        finetuned: the same model after fine-tuning, in the same forms; left out with ``soup=[...]``.
        alpha: the mixing coefficient; 0 is the zero-shot model, 1 the fine-tuned one.
        note: is called with what was changed, left out or decided on the way, one sentence each.
        rules: other arguments of `merge`, such as ``alpha_for`` and ``keep``; not ``output``.

    Raises:
        WiseError: as `merge` does; MismatchError if the mixture does not fit the module.
    """
    merged = merge(zeroshot, finetuned, alpha=alpha, **rules)
    with open_pair(ModelInMemory.of(module, "module"), ModelInMemory.of(merged, "the mixture")) as (own, mixture, _):
        # In this order, so that rows of a head are brought into the order of the module's classes.
        stored = match(mixture, own).zeroshot
        # Names may be without a prefix, but their order is that of the module's state dict, which shares its memory.
        targets = dict(zip(own.tensors, unwrapped(module).state_dict().values(), strict=False))
        values = {name: as_tensor(stored.info(name), stored.read(name)) for name in targets}
        for name, target in targets.items():
            target.copy_(values[name].to(target.device))
    for text in dict.fromkeys((*merged.notes, *stored.notes)):
        note(text)
    return module

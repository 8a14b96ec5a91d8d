"""The zero-shot head: class names and prompt templates become a linear classifier (the paper, section 2).

Knows nothing of images, of how texts are encoded, and of which classes there are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mergekit_wise.progress import Progress, silent

BATCH = 256
"""Texts that are encoded at once, or those of one class where these are more."""


@torch.no_grad()
def zero_shot_head(
    encode: Callable[[list[str]], Tensor],
    classnames: Sequence[str],
    templates: Sequence[str],
    logit_scale: Tensor,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the classifier of image features of length 1.

    ``encode`` gives features [len(texts), D] of any length; a template holds one ``{}``. Each text's features are
    normalised, averaged over the templates, normalised again and multiplied by ``exp(logit_scale)``, which stays in
    the head so that merged heads agree with the authors' code. The bias is zero.
    """
    group = max(1, BATCH // len(templates))
    rows: list[Tensor] = []
    for start in range(0, len(classnames), group):
        progress("zero-shot head", start, len(classnames), "classes")
        names = classnames[start : start + group]
        features_TD = encode([template.replace("{}", name) for name in names for template in templates])
        rows += map(_class_direction, torch.split(features_TD, len(templates)))
    progress("zero-shot head", len(classnames), len(classnames), "classes")
    weight_CD = torch.stack(rows) * logit_scale.exp()
    return weight_CD, weight_CD.new_zeros(len(classnames))


def _class_direction(features_TD: Tensor) -> Tensor:
    mean_D = functional.normalize(features_TD, dim=-1).mean(dim=0)
    return functional.normalize(mean_D, dim=-1)
